"""diff-many and summary: every pair gets a result, whatever becomes of its worker; nothing is compared twice."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.commands import Outcome
from support.judges import by_name
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FAULTY, FUSED, store
from support.verdicts import EVIL, near_tie, verdict_of

from specscope.schemas.pair_result import PairResult
from specscope.schemas.verdict import Blame
from specscope.tracer.errors import UsageError, worst_code
from specscope.tracer.fleet.compare_pair import Task, error_result
from specscope.tracer.fleet.results import first_root, open_results, read_results
from specscope.tracer.fleet.summary import SHOWN_PAIRS, markdown_of, summarise, text_of
from specscope.tracer.fleet.table import Pair, Shard, parse_shard, read_pairs
from specscope.tracer.fleet.workers import judge_all, serve

HEADER = "baseline,candidate,name,allow,noise"


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def compare(pairs: Path, out: Path, *more: str) -> Outcome:
    return specscope("diff-many", pairs, "--out", out, "--jobs", "1", *more)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two equal small traces, one more of the same run made again, and one of another seed."""
    folder = tmp_path_factory.mktemp("toys")
    store(toy_lines(Toy()), folder / "a.jsonl")
    store(toy_lines(Toy()), folder / "b.jsonl")
    lines = toy_lines(Toy())
    lines[0]["run_id"] = "again"
    store(lines, folder / "again.jsonl")
    lines[0]["seed"] = 5
    store(lines, folder / "other-seed.jsonl")
    return folder


def test_a_mixed_table_gets_a_line_a_pair_and_totals_that_add_up(toys: Path, tmp_path: Path) -> None:
    rows = [
        "a.jsonl,b.jsonl,equal,,",
        "a.jsonl,other-seed.jsonl,incomparable,,",
        "a.jsonl,other-seed.jsonl,allowed,seed,",
        "a.jsonl,b.jsonl,noise,,again.jsonl",
        f"{EAGER},{FAULTY},different,,",
        "a.jsonl,none.jsonl,missing,,",
    ]
    pairs, out = table(toys, *rows), tmp_path / "results.jsonl"
    done = specscope("diff-many", pairs, "--out", out, "--jobs", "2", cwd=tmp_path)
    assert done.code == 1
    found = {line["name"]: line for line in lines_of(out)}
    assert {name: (line["verdict"], line["exit_code"]) for name, line in found.items()} == {
        "equal": ("equal", 0),
        "incomparable": ("incomparable", 3),
        "allowed": ("equal", 0),
        "noise": ("equal", 0),
        "different": ("different", 1),
        "missing": ("error", 2),
    }
    root = found["different"]["first_root"]
    assert (root["phase"], root["field"], root["kind"], root["place"]["step_b"]) == (
        *("tensors", "positions", "structural"),
        0,
    )
    assert found["different"]["num_roots"] == 2
    assert found["different"]["impact"]["num_steps_a"] < found["different"]["impact"]["num_steps_b"]
    assert "none.jsonl: no such file" in found["missing"]["error"]
    total = json.loads(specscope("summary", out, "--format", "json").out)
    assert total["num_pairs"] == sum(total["by_verdict"].values()) == 6
    assert total["by_verdict"] == {
        **{"equal": 3, "ties": 0, "different": 1},
        **{"incomparable": 1, "uncovered": 0, "error": 1},
    }
    assert total["by_first_root"] == {"tensors: positions": 1}
    assert specscope("summary", out).out == done.out
    assert specscope("summary", out).code == 1


def test_what_is_known_is_not_compared_again(toys: Path, tmp_path: Path) -> None:
    traces = [store(toy_lines(Toy()), tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    pairs, out = table(tmp_path, "a.jsonl,b.jsonl,one,,", "a.jsonl,gone.jsonl,two,,"), tmp_path / "r.jsonl"
    assert compare(pairs, out).code == 2
    before = out.read_bytes()
    with out.open("ab") as file:
        file.write(before.splitlines()[0][:-9])  # torn
    done = compare(pairs, out)
    assert "1 of 2 pairs are known" in done.err
    assert [line["name"] for line in lines_of(out)] == ["one", "two", "two"], (
        "the torn line is cut, the error tried again"
    )
    os.utime(traces[1], ns=(1, 1))
    compare(pairs, out)
    assert [line["name"] for line in lines_of(out)][3:] == ["one", "two"], "another time is another file"
    compare(pairs, out, "--fail-on", "near-tie")
    assert len(lines_of(out)) == 7, "another setting is another question"
    assert len(read_results(out)) == 2


def test_an_interrupt_keeps_what_is_there(toys: Path, tmp_path: Path) -> None:
    pairs = table(tmp_path, *(f"{toys}/a.jsonl,{toys}/b.jsonl,pair-{n},," for n in range(300)))
    out = tmp_path / "results.jsonl"
    command = [str(Path(sys.executable).with_name("specscope")), "diff-many", str(pairs), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--jobs", "1"],
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    end = time.monotonic() + 60
    while not (out.exists() and out.read_bytes().count(b"\n") >= 3) and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"interrupted; {out} keeps the results so far; the same command resumes them" in err
    num_kept = len(lines_of(out))
    assert 3 <= num_kept < 300
    done = compare(pairs, out, "--shard", "1/30")
    assert done.code == 0
    known = {line["name"] for line in lines_of(out)[:num_kept]}
    wanted = {f"pair-{n}" for n in range(0, 300, 30)}
    assert {line["name"] for line in lines_of(out)[num_kept:]} == wanted - known


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_dies_takes_its_pair_alone(num_workers: int) -> None:
    names = ["good-1", "kill-1", "exit-1", "good-2", "kill-2", "good-3"]
    tasks = [Task(Pair(name=name, baseline=Path("a"), candidate=Path("b"))) for name in names]
    results = {result.name: result for result in judge_all(tasks, num_workers, by_name)}
    assert sorted(results) == sorted(names)
    assert {r.verdict for r in results.values()} == {"error"}
    said = {name: result.error or "" for name, result in results.items()}
    assert all("killed by SIGKILL" in said[name] for name in ("kill-1", "kill-2"))
    assert "ended with code 7" in said["exit-1"]
    assert all("judged by" in said[name] for name in ("good-1", "good-2", "good-3"))


def test_workers_end_with_the_one_who_asked() -> None:
    judging = judge_all(
        [Task(Pair(name=name, baseline=Path("a"), candidate=Path("b"))) for name in ("good", "wait")], 2, by_name
    )
    pid = int((next(judging).error or "").split()[-1])
    judging.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_ends_quietly_where_nobody_waits_for_its_answer() -> None:
    asker, worker = multiprocessing.Pipe()

    def judge(task: Task) -> PairResult:
        asker.close()  # as it does that was interrupted
        return error_result(task, task.stamp, "too late", 0.0)

    asker.send(Task(Pair(name="late", baseline=Path("a"), candidate=Path("b"))))
    serve(worker, judge)


def test_shards_are_disjoint_and_complete() -> None:
    items = list(range(17))
    for count in (1, 2, 5, 20):
        parts = [Shard(number, count).of(items) for number in range(1, count + 1)]
        assert Counter(item for part in parts for item in part) == Counter(items)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for bad in ("0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2"):
        with pytest.raises(UsageError, match="wanted i/N"):
            parse_shard(bad)


def test_summary_over_shards_names_a_shard_that_is_missing(toys: Path, tmp_path: Path) -> None:
    pairs = table(tmp_path, *(f"{toys}/a.jsonl,{toys}/b.jsonl,pair-{n},," for n in range(3)))
    outs = [tmp_path / f"{n}.jsonl" for n in (1, 2)]
    for number, out in enumerate(outs, start=1):
        assert compare(pairs, out, "--shard", f"{number}/2").code == 0
    assert [len(lines_of(out)) for out in outs] == [2, 1]
    assert specscope("summary", *outs, outs[0], "--pairs", pairs).out.startswith("3 pairs: 3 equal\n")
    done = specscope("summary", outs[0], "--pairs", pairs)
    assert (done.code, done.err) == (4, "missing: 1 pair of the table without a result: pair-1\n")


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ((), "", "got the header (nothing)"),
        ((), HEADER, "names no pair"),
        (("a,b",), "baseline,cand", "line 1: got the header"),
        (("a,b,c",), "baseline,candidate,colour", "line 1: got the header"),
        (("a,b", "a"), "baseline,candidate", "line 3: got 1 cells, wanted 2"),
        (("a, ",), "baseline,candidate", "line 2: the candidate is empty"),
        (("a,b,x", "c,d,x"), "baseline,candidate,name", "names two pairs 'x'"),
        (("a,b", "a,b"), "baseline,candidate", "names two pairs 'a -> b'"),
        (('a,"b',), "baseline,candidate", "wanted CSV"),
        (("a,b\0",), "baseline,candidate", "holds a NUL"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, rows: tuple[str, ...], header: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_pairs(table(tmp_path, *rows, header=header))
    assert words in str(caught.value)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes("baseline,candidate\nä,b\n".encode("latin-1"))
    with pytest.raises(UsageError, match="wanted CSV in UTF-8"):
        read_pairs(path)
    path.write_text("\ufeffbaseline,candidate\r\nsub/a,b\r\n\r\n", encoding="utf-8")
    (pair,) = read_pairs(path)
    assert (pair.name, pair.baseline) == ("sub/a -> b", tmp_path / "sub" / "a")


def test_a_torn_last_line_is_cut_off_before_anything_is_added(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    first, second = (
        error_result(Task(Pair(name=n, baseline=Path("a"), candidate=Path("b"))), "", "x", 0.5)
        for n in ("first", "second")
    )
    with open_results(path) as results:
        results.add(first)
    line = path.read_bytes()
    for torn in (line + line[:-2], line[:5]):
        path.write_bytes(torn)
        with open_results(path) as results:
            results.add(second)
        assert [json.loads(line)["name"] for line in path.read_text().splitlines()][-1] == "second"


def test_a_file_that_holds_no_results_is_left_alone(toys: Path, tmp_path: Path) -> None:
    pairs = table(tmp_path, f"{toys}/a.jsonl,{toys}/b.jsonl,one,,")
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(FUSED.read_bytes())
    note = tmp_path / "note.txt"
    note.write_text("no newline")
    for path in (trace, note, pairs):
        before = path.read_bytes()
        assert compare(pairs, path).code == 2
        assert path.read_bytes() == before
    assert compare(pairs, tmp_path / "none" / "r.jsonl").code == 2
    with (
        open_results(tmp_path / "r.jsonl"),
        pytest.raises(UsageError, match="another process"),
        open_results(tmp_path / "r.jsonl"),
    ):
        pass


def test_only_a_lock_that_is_held_is_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UsageError, match="No locks available"), open_results(tmp_path / "r.jsonl"):
        pass


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    done = compare(table(tmp_path, "a,b,one,,"), loop)
    assert (done.code, done.out) == (2, "")
    assert "cannot write" in done.err


def test_files_without_a_whole_result_are_no_success(toys: Path, tmp_path: Path) -> None:
    pairs = table(tmp_path, f"{toys}/a.jsonl,{toys}/b.jsonl,one,,")
    full, empty, torn = (tmp_path / f"{name}.jsonl" for name in ("full", "empty", "torn"))
    assert compare(pairs, full).code == 0
    done = compare(pairs, empty, "--shard", "2/2")
    assert done.code == 0
    assert "no pair in this shard" in done.err
    torn.write_bytes(full.read_bytes()[:-9])
    for path, words in ((empty, "holds no result"), (torn, "are a torn line and were left out")):
        done = specscope("summary", path)
        assert done.code == 4
        assert words in done.err
    assert specscope("summary", full, empty).code == 4, "nothing says that the empty shard had no pair"
    assert specscope("summary", full, empty, "--pairs", pairs).code == 0
    full.write_bytes(full.read_bytes() + torn.read_bytes())
    done = specscope("summary", full)
    assert (done.code, done.out[:7]) == (0, "1 pair:")
    assert "torn line" in done.err


def test_a_violation_beside_ties_is_what_the_line_is_about() -> None:
    blame = Blame(side="b", invariant="commit.length", witness="7, wanted 8")
    verdict = verdict_of(roots=[near_tie()], violations=[blame])
    assert first_root(verdict) is None
    assert first_root(verdict_of("ties", 0, roots=[near_tie()])) is not None
    result = error_result(Task(Pair(name="one", baseline=Path("a"), candidate=Path("b"))), "", "", 0.5).model_copy(
        update={"verdict": "different", "exit_code": 1, "num_roots": 1, "first_violation": blame}
    )
    total = summarise([result])
    assert total.failing[0].what == "ties alone: the candidate violates commit.length: 7, wanted 8"
    assert total.by_first_root == {"ties alone: an invariant is violated": 1}


def test_the_worst_code_is_one_then_two_four_three() -> None:
    assert [worst_code(codes) for codes in ((), (0, 0), (0, 3), (3, 4), (4, 2, 3), (2, 1, 4))] == [0, 0, 3, 4, 2, 1]


def test_a_pair_without_a_root_names_what_is_violated(tmp_path: Path) -> None:
    pairs, out = table(tmp_path, f"{FAULTY},{FAULTY},one,,"), tmp_path / "r.jsonl"
    done = compare(pairs, out)
    assert done.code == 1
    assert "no root: the baseline violates tensors.position-is-length-plus-depth: slot 2" in done.out
    assert lines_of(out)[0]["first_violation"]["side"] == "a"


def test_a_summary_shows_hostile_names_literally_and_stays_short() -> None:
    def result(number: int) -> PairResult:
        name = f"{number} {EVIL}" * 50
        return error_result(Task(Pair(name=name, baseline=Path("a"), candidate=Path("b"))), "", EVIL * 50, 0.5)

    total = summarise(result(number) for number in range(200))
    page, text = markdown_of(total), text_of(total)
    assert len(page.encode()) < 100_000
    assert "<script" not in page
    assert f"and {200 - SHOWN_PAIRS} more" in page
    assert "200 pairs: 200 error" in text
    for line in [*page.splitlines(), *text.splitlines()]:
        assert not line.lstrip().startswith(("::", "##["))
    assert total.seconds == 100
