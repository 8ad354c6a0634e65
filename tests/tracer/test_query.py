"""SQL over real traces: the tables hold what the records hold, the documented columns are there, SQL reaches no more.

What needs DuckDB is skipped where it is not installed (extra ``query``).
"""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.lengths_runs import HONEST, lengths_lines
from support.rank_mutants import one_rank_parts, ranks_agree
from support.row_mutants import requests_waited
from support.traces import EAGER, FUSED, ROOT, first_step, load, store

from specscope.tracer.errors import UsageError
from specscope.tracer.export.database import ask, store_parquet
from specscope.tracer.export.tables import TABLES, columns_text, table_rows
from specscope.tracer.files.reader import TraceReader

needs_duckdb = pytest.mark.skipif(find_spec("duckdb") is None, reason="duckdb is not installed: the extra query")


def asked(sql: str, *traces: Path) -> list[dict[str, Any]]:
    """The rows of an answer, through the command."""
    done = specscope("query", sql, *traces, "--format", "json")
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)
    return rows


def test_the_documented_columns_are_those_of_the_tables() -> None:
    document = (ROOT / "docs" / "query.md").read_text(encoding="utf-8")
    [block] = re.findall(r"<!-- columns -->\n(.*?)\n<!-- end -->", document, re.DOTALL)
    assert block == columns_text(), "put what  specscope query --columns  prints into docs/query.md"
    assert specscope("query", "--columns").out.rstrip("\n") == block


@pytest.mark.parametrize("name", TABLES)
def test_every_column_is_filled_by_some_trace_and_every_value_has_a_column(name: str, tmp_path: Path) -> None:
    table, served = TABLES[name], store(requests_waited(ranks_agree(load(FUSED))), tmp_path / "served.jsonl")
    rows = [row for path in (FUSED, EAGER, served) for row in table_rows(table, path)]
    filled = {column for row in rows for column, value in row.items() if value is not None}
    assert {column.name for column in table.columns} - filled <= {"begun_ms", "branch_ms", "deliver_ms", "proposed_by"}
    with TraceReader(FUSED) as reader:
        assert all(row.keys() <= {column.name for column in table.columns} for row in table.rows(reader))


def test_without_duckdb_the_message_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text("raise ModuleNotFoundError('No module named duckdb', name='duckdb')")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from specscope.tracer.cli.main import main; main()"
    for arguments in (
        ["query", "SELECT 1", str(FUSED)],
        ["export", str(FUSED), "--format", "parquet", "-o", str(tmp_path / "out.parquet")],
    ):
        command = [sys.executable, "-c", code, str(tmp_path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        wanted = "error: this command needs duckdb: install it with  pip install 'specscope[query]'\n"
        assert (done.returncode, done.stderr) == (2, wanted)


def test_sql_and_traces_are_both_wanted() -> None:
    assert specscope("query").code == 2
    assert "wanted SQL and traces" in specscope("query", "SELECT 1").err


@needs_duckdb
def test_the_tables_hold_what_the_records_hold() -> None:
    lines = load(FUSED)
    steps = [line for line in lines if line["kind"] == "step"]
    [row] = asked("SELECT count(*) n, sum(accepted_length) a, sum(nodes) d, sum(verify_ms) ms FROM steps", FUSED)
    assert (row["n"], row["a"]) == (len(steps), sum(step["accept"]["accepted_length"] for step in steps))
    assert row["d"] == sum(len(step["tree"]["tokens"]) - 1 for step in steps)
    assert row["ms"] == pytest.approx(sum(step["timing"]["verify_ns"] for step in steps) / 1e6)


@needs_duckdb
def test_turns_and_nodes_are_counted_as_recorded() -> None:
    lines = load(FUSED)
    steps = [line for line in lines if line["kind"] == "step"]
    ends = [line for line in lines if line["kind"] == "turn_end"]
    turns = asked("SELECT output_tokens, accepted, reason FROM turns ORDER BY turn", FUSED)
    assert [tuple(turn.values()) for turn in turns] == [
        (len(end["output_ids"]), end["num_accepted"], end["reason"]) for end in ends
    ]
    [row] = asked("SELECT count(*) n, count(parent) children, sum(accepted::INT) path FROM nodes", FUSED)
    assert (row["n"], row["children"]) == (sum(len(s["tree"]["tokens"]) for s in steps), row["n"] - len(steps))
    assert row["path"] == sum(1 + step["accept"]["accepted_length"] for step in steps)


@needs_duckdb
def test_rows_arrivals_and_cancels_have_their_columns(tmp_path: Path) -> None:
    served = store(requests_waited(load(FUSED)), tmp_path / "served.jsonl")
    columns = "row, arrived_at, joined_at, waited_steps, waited_ms, reason"
    turns = [tuple(turn.values()) for turn in asked(f"SELECT {columns} FROM turns ORDER BY turn", served)]
    waited = [(0, 0, 0, 0, 0.0, "length"), (1, 2, 5, 3, 1500.0, "length"), (0, 2, 18, None, None, "cancelled")]
    assert turns == waited
    rows = asked("SELECT turn, step, row FROM steps ORDER BY turn, step", served)
    assert [row["row"] for row in rows if row["turn"] == 1][:4] == [1, 1, 0, 0], "it moved in its third step"
    [absent] = asked("SELECT count(row) r, count(arrived_at) a, count(waited_steps) w FROM turns", FUSED)
    assert absent == {"r": 0, "a": 0, "w": 0}


@needs_duckdb
def test_ranks_have_a_row_in_each_step_and_failure(tmp_path: Path) -> None:
    lines = load(FUSED)
    one_rank_parts(lines)
    rows = asked("SELECT * FROM ranks ORDER BY turn, step, rank", store(lines, tmp_path / "ranks.jsonl"))
    steps = [line for line in lines if line["kind"] == "step"]
    assert len(rows) == 3 * len(steps)
    assert [(row["step"], row["rank"]) for row in rows if not row["agrees"]] == [(1, 2)]
    assert rows[0]["tree_digest"] == steps[0]["ranks"][0]["tree_digest"]
    assert asked("SELECT count(*) n FROM ranks", FUSED) == [{"n": 0}]


@needs_duckdb
def test_nodes_join_steps_of_several_traces() -> None:
    sql = """WITH child AS (SELECT * FROM nodes WHERE slot > 0)
             SELECT trace, sum(child.accepted::INT) = sum(DISTINCT 0) + any_value(a) AS same FROM child
             JOIN (SELECT trace, sum(accepted_length) a FROM steps GROUP BY trace) USING (trace) GROUP BY trace"""
    rows = asked(sql, FUSED, EAGER)
    assert {row["trace"]: row["same"] for row in rows} == {str(FUSED): True, str(EAGER): True}


@needs_duckdb
def test_numbers_that_are_not_finite_and_lengths_alone(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines)["tree"]["logprobs"][1:3] = ["NaN", "-Infinity"]
    path = store(lines, tmp_path / "odd.jsonl")
    [row] = asked("SELECT count(*) n FROM nodes WHERE isnan(logprob) OR logprob = '-infinity'", path)
    assert row["n"] == 2
    lengths = store(lengths_lines(HONEST), tmp_path / "lengths.jsonl")
    [row] = asked(
        "SELECT sum(accepted_length) a, count(committed) c, (SELECT count(*) FROM nodes) n FROM steps", lengths
    )
    assert row == {"a": 8, "c": 0, "n": 0}


@needs_duckdb
def test_a_number_that_no_column_holds_is_refused_in_words(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines)["tree"]["tokens"][1] = 10**30
    path = store(lines, tmp_path / "huge.jsonl")
    done = specscope("query", "SELECT count(*) FROM nodes", path)
    wanted = f"error: {path}: token has 31 digits, wanted {-(2**63)} to {2**63 - 1}\n"
    assert (done.code, done.err) == (2, wanted)


@needs_duckdb
@pytest.mark.parametrize("text", ["x" * 20_000_000, "a\0b"], ids=["long", "null"])
def test_texts_that_duckdb_cannot_read_are_refused_in_our_words(tmp_path: Path, text: str) -> None:
    lines = load(FUSED)
    for line in lines:
        if line["kind"] == "turn_start":
            line["prompt_id"] = text
    path = store(lines, tmp_path / "odd.jsonl")
    done = specscope("query", "SELECT count(*) AS n FROM turns", path)
    assert done.code == 0 or done.err.startswith(f"error: {path}: "), done.err
    assert "maximum_object_size" not in done.err
    assert "tmp" not in done.err.replace(str(path), "")


@needs_duckdb
def test_a_file_name_that_is_no_utf8_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "odd\udcff.jsonl"
    try:
        store(load(FUSED), path)
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    [row] = asked("SELECT DISTINCT trace FROM turns", path)
    assert row["trace"] == str(tmp_path / r"odd\udcff.jsonl")


@needs_duckdb
def test_every_trace_is_opened_even_where_the_sql_names_no_table(tmp_path: Path) -> None:
    done = specscope("query", "SELECT 1", tmp_path / "none.jsonl")
    assert (done.code, done.err) == (2, f"error: {tmp_path / 'none.jsonl'}: no such file\n")
    assert [row["name"] for row in asked("SHOW TABLES", FUSED)] == sorted(TABLES)
    [row] = asked("SELECT count(*) n FROM query_table('no' || 'des')", FUSED)
    assert row["n"] == len(list(table_rows(TABLES["nodes"], FUSED)))


@needs_duckdb
@pytest.mark.parametrize("kind", ["same", "symbolic", "hard"])
def test_a_trace_that_is_named_twice_is_refused(tmp_path: Path, kind: str) -> None:
    first, second = store(load(FUSED), tmp_path / "a.jsonl"), tmp_path / "b.jsonl"
    if kind == "symbolic":
        second.symlink_to(first)
    elif kind == "hard":
        second.hardlink_to(first)
    else:
        second = first
    done = specscope("query", "SELECT count(*) FROM steps", first, second)
    assert (done.code, f"got {first} and {second}, which are the same file" in done.err) == (2, True), done.err


@needs_duckdb
@pytest.mark.parametrize("cut", ["torn", "truncated", None])
def test_a_trace_that_was_cut_off_is_named_on_standard_error(tmp_path: Path, cut: str | None) -> None:
    path = tmp_path / "cut.jsonl"
    lines = FUSED.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][: {"torn": 9, "truncated": 0, None: None}[cut]])
    notes = {
        "torn": f"{path}: a torn record of 9 bytes was left out\n",
        "truncated": f"{path}: no run_end: the run was cut off\n",
        None: "",
    }
    queried = specscope("query", "SELECT count(*) FROM steps", path, "--format", "csv")
    exported = specscope("export", path, "--format", "parquet", "-o", tmp_path / "out.parquet")
    assert [(done.code, done.err) for done in (queried, exported)] == [(0, notes[cut])] * 2


NESTED = """SELECT DATE '2020-01-02' d, 1.50::DECIMAL(5,2) e, {'a': DATE '2020-01-02', 'b': ['inf'::DOUBLE, 1]} s,
    MAP{1: DATE '2020-01-02'} m, MAP{{'k': 1}: 2} odd, ['\\xFFa'::BLOB] bytes, ['nan'::DOUBLE, NULL] n, [true] flags,
    [1.5::DECIMAL(3,1)]::DECIMAL(3,1)[1] fixed, uuid() IS NOT NULL AS yes"""


@needs_duckdb
def test_nested_values_are_json_in_every_format() -> None:
    done = specscope("query", NESTED, FUSED, "--format", "json")
    assert done.code == 0, done.err
    [row] = json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert row == {
        "d": "2020-01-02",
        "e": "1.50",
        "s": {"a": "2020-01-02", "b": ["inf", 1.0]},
        "m": {"1": "2020-01-02"},
        "odd": {"key": [{"k": 1}], "value": [2]},
        "bytes": ["\\xffa"],
        "n": ["nan", None],
        "flags": [True],
        "fixed": ["1.5"],
        "yes": True,
    }
    names, values = csv.reader(io.StringIO(specscope("query", NESTED, FUSED, "--format", "csv").out))
    texts = dict(zip(names, values, strict=True))
    assert (texts.pop("d"), texts.pop("e")) == ("2020-01-02", "1.50")
    assert {name: json.loads(text) for name, text in texts.items()} == {
        name: value for name, value in row.items() if name not in {"d", "e"}
    }


@needs_duckdb
def test_columns_of_one_name_are_told_apart() -> None:
    sql = "SELECT 1 AS turn, 2 AS turn, 3 AS turn_1, 4 AS turn, 5 AS other"
    row = {"turn": 1, "turn_2": 2, "turn_1": 3, "turn_3": 4, "other": 5}
    assert asked(sql, FUSED) == [row]
    done = specscope("query", sql, FUSED, "--format", "csv")
    assert done.out == ",".join(row) + "\n1,2,3,4,5\n"


@needs_duckdb
def test_csv_tells_null_from_an_empty_text_to_duckdb_as_well(tmp_path: Path) -> None:
    import duckdb

    done = specscope("query", "SELECT NULL AS a, '' AS b, 'x, \"y\"\n' AS c, 1 AS d", FUSED, "--format", "csv")
    assert done.out == 'a,b,c,d\n,"","x, ""y""\n",1\n'
    (tmp_path / "out.csv").write_text(done.out)
    read = duckdb.read_csv(str(tmp_path / "out.csv"), header=True, all_varchar=True, allow_quoted_nulls=False)
    assert read.fetchall() == [(None, "", 'x, "y"\n', "1")]


@needs_duckdb
def test_an_endless_answer_streams_and_a_table_ends() -> None:
    sql = "SELECT range AS n FROM range(1000000000000)"
    command = [str(Path(sys.executable).with_name("specscope")), "query", sql, str(FUSED), "--format"]
    for form in ("csv", "json"):
        with subprocess.Popen([*command, form], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(5000)]
            process.stdout.close()  # as head does
            try:
                code = process.wait(60)
            finally:
                process.kill()
        assert (code, b"4998" in lines[4999]) == (0, True)
    done = specscope("query", sql, FUSED)
    assert (done.code, len(done.out.splitlines())) == (0, 1002)
    assert done.out.endswith("the first 1,000 rows; there are more, which --format csv or json prints\n")
    assert "there are more" not in specscope("query", "SELECT * FROM range(1000)", FUSED).out


@needs_duckdb
def test_a_query_that_needs_too_much_memory_is_refused_in_words() -> None:
    done = specscope("query", "SELECT list(range) FROM range(3000000000)", FUSED)
    assert (done.code, done.err.count("\n"), "more than 4 GB of memory" in done.err) == (2, 1, True), done.err


@needs_duckdb
@pytest.mark.parametrize("fails", [False, True])
def test_parquet_touches_no_other_file(tmp_path: Path, fails: bool) -> None:
    path = store(load(FUSED), tmp_path / "run.parquet.partial")
    target = tmp_path / "run.parquet"
    if fails:
        lines = load(FUSED)
        first_step(lines)["tree"]["tokens"][1] = 10**30
        store(lines, path)
    target.write_text("old")
    target.chmod(0o640)
    before = path.read_bytes()
    done = specscope("export", path, "--format", "parquet", "--table", "nodes", "-o", target, "--overwrite")
    assert done.code == (2 if fails else 0), done.err
    assert path.read_bytes() == before
    assert (target.read_bytes() == b"old", target.stat().st_mode & 0o777) == (fails, 0o640)
    assert {p.name for p in tmp_path.iterdir()} <= {path.name, f"{path.name}.idx", target.name}


@needs_duckdb
def test_parquet_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UsageError, match=r"out\.parquet cannot be written: No space left on device"):
        store_parquet("turns", FUSED, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


@needs_duckdb
def test_a_single_row_is_no_rows(tmp_path: Path) -> None:
    lines = FUSED.read_bytes().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if b'"kind":"step"' in line.replace(b" ", b"")) + 1
    path = tmp_path / "short.jsonl"
    path.write_bytes(b"".join(lines[:kept]))
    done = specscope("export", path, "--format", "parquet", "-o", tmp_path / "out.parquet")
    assert done.out.endswith(": 1 row of steps\n"), done.out


@needs_duckdb
@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SELECT * FROM read_text('{file}')", "Cannot access file"),
        ("SELECT * FROM '{file}'", "Cannot access file"),
        ("SELECT * FROM glob('{folder}/*')", "Cannot access file"),
        ("COPY turns TO '{folder}/stolen.csv'", "got COPY, wanted one SELECT"),
        ("ATTACH '{folder}/base.db'", "got ATTACH"),
        ("INSTALL httpfs", "got LOAD"),
        ("SET enable_external_access = true", "got SET"),
        ("SELECT 1; SELECT 2", "got SELECT, SELECT"),
        ("DROP TABLE turns", "got DROP"),
        ("", "got no statement"),
    ],
)
def test_sql_reaches_nothing_but_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, wanted: str
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nhidden,1\n")
    with pytest.raises(UsageError, match=wanted), ask(sql.format(file=secret, folder=tmp_path), [FUSED]):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]


@needs_duckdb
def test_a_local_name_of_ours_is_no_table() -> None:
    wanted = r"does not exist! The tables are turns, steps, nodes, ranks$"
    with pytest.raises(UsageError, match=wanted), ask("SELECT * FROM traces", [FUSED]):
        pass


@needs_duckdb
@pytest.mark.parametrize(("sql", "wanted"), [("SELECT nothing FROM turns", "nothing"), ("SELEC", "syntax error")])
def test_a_mistake_in_sql_is_one_line(sql: str, wanted: str) -> None:
    done = specscope("query", sql, FUSED)
    assert (done.code, wanted in done.err, done.err.count("\n")) == (2, True, 1), done.err


@needs_duckdb
def test_the_table_and_csv_hold_the_same(tmp_path: Path) -> None:
    sql = "SELECT turn, prompt_id, NULL AS nothing FROM turns ORDER BY turn"
    rows = list(csv.reader(io.StringIO(specscope("query", sql, FUSED, "--format", "csv").out)))
    assert rows[0] == ["turn", "prompt_id", "nothing"]
    assert rows[1:] == [["0", "function", ""], ["1", "class", ""], ["2", "class", ""]]
    assert re.search(r"0 +function +-", specscope("query", sql, FUSED).out)


@needs_duckdb
@pytest.mark.parametrize("name", TABLES)
def test_parquet_holds_the_rows_of_the_table(tmp_path: Path, name: str) -> None:
    import duckdb

    out = tmp_path / "it's.parquet"
    done = specscope("export", FUSED, "--format", "parquet", "--table", name, "-o", out)
    rows = list(table_rows(TABLES[name], FUSED))
    assert (done.code, f"{len(rows)} rows" in done.out) == (0, True), done.err
    with duckdb.connect(":memory:") as base:
        stored = base.execute("SELECT * FROM read_parquet(?)", [str(out)])
        names = [column[0] for column in stored.description]
        assert [dict(zip(names, row, strict=True)) for row in stored.fetchall()] == rows
    again = specscope("export", FUSED, "--format", "parquet", "--table", name, "-o", out)
    assert (again.code, "exists already" in again.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["it's.parquet"]
