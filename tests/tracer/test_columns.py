"""Every command that prints lines or tables, on a real terminal of 80 columns: no line is wider, and no word is cut."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from support.called import specscope
from support.recorder_calls import ABOUT
from support.terminals import on_terminal
from support.traces import EAGER, FAULTY, FUSED, ROOT, load, store

from specscope.tracer import Recorder
from specscope.tracer.cli.main import cli
from specscope.tracer.report.fitted import print_command, print_line, print_table

DUMP = ROOT / "tests" / "adapters" / "dumps" / "vllm-detailed.jsonl"
PAIRS = """baseline,candidate,name
a.jsonl,b.jsonl,good
a.jsonl,c.jsonl,a-pair-whose-name-says-a-great-deal-about-it
a.jsonl,nowhere.jsonl,lost
"""
#: What is said only where a table, or a drawing, has no room.
ONLY_HERE = {"check verbose": "not judged", "show deep step": "below slot depth node and its slot"}
#: Of frames and bars, which have no words.
DRAWN = re.compile(r"[\u2500-\u257f]+")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces with short names, as a person has them in the folder at hand."""
    folder = tmp_path_factory.mktemp("columns")
    for name, path in (("a", EAGER), ("b", FUSED), ("c", FAULTY)):
        store(load(path), folder / f"{name}.jsonl")
    (folder / "pairs.csv").write_text(PAIRS)
    (folder / "dump.jsonl").write_bytes(DUMP.read_bytes())
    chain: dict[str, Any] = {
        "tokens": list(range(40)),
        "parents": [0, *range(39)],
        "argmax": [99] * 40,
        "path": [],
        "bonus_token": 99,
    }
    with Recorder(folder / "deep.jsonl", **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 0)
        turn.step(**chain)
        turn.end("length")
    assert specscope("diff-many", "pairs.csv", "--jobs", "1", "--out", "known.jsonl", cwd=folder).code == 1
    return folder


COMMANDS: dict[str, list[str]] = {
    "check": ["check", "a.jsonl", "c.jsonl", "nowhere.jsonl"],
    "check verbose": ["check", "--verbose", "c.jsonl"],
    "check required": ["check", "deep.jsonl", "--require", "all"],
    "diff": ["diff", "a.jsonl", "c.jsonl"],
    "diff equal": ["diff", "a.jsonl", "b.jsonl"],
    "diff foreign": ["diff", "a.jsonl", "deep.jsonl"],
    "diff of no trace": ["diff", "a.jsonl", "pairs.csv"],
    "summary": ["summary", "known.jsonl", "--pairs", "pairs.csv"],
    "metrics": ["metrics", "a.jsonl", "b.jsonl"],
    "whatif": ["whatif", "a.jsonl"],
    "show": ["show", "a.jsonl"],
    "show step": ["show", "c.jsonl", "--step", "0"],
    "show deep step": ["show", "deep.jsonl", "--step", "0"],
    "query": ["query", "SELECT trace, step, accepted_length, emitted FROM steps LIMIT 3", "a.jsonl"],
    "query wide": ["query", "SELECT * FROM steps LIMIT 2", "a.jsonl"],
    "query columns": ["query", "--columns"],
    "merge": ["merge", "a.jsonl", "b.jsonl", "--out", "merged.jsonl"],
}


def words(text: str) -> set[str]:
    """The words, without what stands behind a name in a list and not in a table."""
    return {word.rstrip(":") for word in DRAWN.sub(" ", text).split()} - {"", "\\", "~"}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_terminal_and_no_word_is_cut(folder: Path, name: str) -> None:
    if name.startswith("query"):
        pytest.importorskip("duckdb")
    shown, piped = on_terminal(*COMMANDS[name], cwd=folder), specscope(*COMMANDS[name], cwd=folder)
    assert shown.code == piped.code
    assert [line for line in shown.lines if len(line) > 80] == []
    whole = words(piped.out + piped.err)
    assert words(shown.text) - whole <= words(ONLY_HERE.get(name, "")), "a word is in pieces"
    if not name.startswith("check"):  # a list there, which has no heads
        assert whole <= words(shown.text), "something is left out"


@pytest.mark.parametrize(
    "arguments",
    [
        ["diff-many", "pairs.csv", "--jobs", "1", "--out", "again.jsonl"],
        ["convert", "vllm", "dump.jsonl", "--out", "dump-trace.jsonl"],
        ["export", "a.jsonl", "--format", "aiperf", "--out", "profile.jsonl"],
    ],
)
def test_commands_that_write_files_keep_within_it_too(folder: Path, arguments: list[str]) -> None:
    shown = on_terminal(*arguments, cwd=folder)
    assert shown.code in (0, 1)
    assert shown.text.strip()
    assert [line for line in shown.lines if len(line) > 80] == []


def test_the_help_of_every_command_keeps_within_it() -> None:
    context = click.Context(cli, info_name="specscope", terminal_width=80)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        page = command.get_help(click.Context(command, info_name=name, parent=context, terminal_width=80))
        assert [line for line in page.splitlines() if len(line) > 80] == []
    assert [line for line in cli.get_help(context).splitlines() if len(line) > 80] == []


def printed(width: int, what: Table) -> list[str]:
    page = io.StringIO()
    print_table(Console(width=width, file=page, emoji=False), what)
    return page.getvalue().splitlines()


def table(*rows: list[str]) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    for number in range(len(rows[0])):
        drawn.add_column(f"header {number}", no_wrap=number == 0, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn


@pytest.mark.parametrize(
    ("width", "wanted"),
    [
        (24, ["header 0  header 1      ", "a name    of two words  "]),
        (18, ["header 0  header 1", "a name    of two  ", "          words   "]),
        (13, ["header header", "0      1     ", "a name of two", "       words "]),
    ],
)
def test_a_table_that_does_not_fit_is_wrapped_between_words(width: int, wanted: list[str]) -> None:
    assert printed(width, table(["a name", "of two words"])) == wanted


def test_one_that_does_not_fit_even_so_is_printed_row_by_row() -> None:
    rows = [["a name", "of two words", "-"], ["another", "", "3"]]
    assert printed(17, table(*rows)) == [
        *("header 0  a name", "header 1  of two", "          words", "header 2  -", ""),
        *("header 0  another", "header 1", "header 2  3"),
    ]


def test_a_command_goes_on_behind_a_backslash_and_between_its_words() -> None:
    command = "specscope diff a.jsonl 'b c d.jsonl' --allow dtype"
    page = io.StringIO()
    print_command(Console(width=30, file=page, emoji=False), command, before="  ")
    lines = page.getvalue().splitlines()
    assert lines == ["  specscope diff a.jsonl \\", "      'b c d.jsonl' \\", "      --allow dtype"]
    assert shlex.split(page.getvalue().replace("\\\n", "")) == shlex.split(command)


WORDS = st.text(alphabet="ab '\"\\$*-é", min_size=1, max_size=24)


@settings(max_examples=60, deadline=None)
@given(words=st.lists(WORDS | st.sampled_from(["--allow", "--at"]), min_size=1, max_size=6), width=st.integers(10, 90))
def test_a_shell_reads_what_is_printed_as_the_command_that_was_meant(words: list[str], width: int) -> None:
    page = io.StringIO()
    command = shlex.join(["specscope", *words])
    print_command(Console(width=width, file=page, emoji=False, color_system=None), command, before="next  ")
    shell = "specscope() { for word; do printf '%s\\0' \"$word\"; done; }\n"
    script = shell + page.getvalue().removeprefix("next  ")
    heard = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert heard.split("\0")[:-1] == words


def test_a_command_that_is_no_words_alone_stays_in_one_piece() -> None:
    page = io.StringIO()
    print_command(Console(width=20, file=page, emoji=False), "specscope show a.jsonl > b.txt", before="")
    assert page.getvalue() == "specscope show a.jsonl > b.txt\n"


def test_a_table_without_rows_says_so_with_its_columns() -> None:
    empty = Table(*(f"header{number}" for number in range(3)), box=None)
    assert " ".join(printed(18, empty)) == "no rows; columns: header0, header1, header2"


def test_in_a_pipe_a_row_is_a_line() -> None:
    many = ", ".join(f"{number} AS a_column_of_a_long_name_{number}" for number in range(12))
    rows = specscope("query", f"SELECT {many}", FUSED).out.splitlines()
    assert [len(row.split()) for row in rows] == [12, 12]


def test_a_word_that_no_line_can_hold_stays_whole() -> None:
    page = io.StringIO()
    print_line(Console(width=20, file=page, emoji=False), f"error: {'x' * 30}/y is missing", indent=2, hanging=2)
    assert page.getvalue().splitlines() == ["  error:", f"    {'x' * 30}/y", "    is missing"]
