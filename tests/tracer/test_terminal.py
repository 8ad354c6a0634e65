"""What the commands print on a terminal of 80 columns, and into pipes that know few characters."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from rich.console import Console
from support.traces import EAGER, FAULTY, FUSED

from specscope.tracer.cli import check as check_command
from specscope.tracer.cli import console as console_module
from specscope.tracer.cli import main as main_module
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.report.fitted import PLAIN_WIDTH
from specscope.tracer.report.report import Report
from specscope.tracer.report.text import print_verdict

LONG_ID = "tensors.position-is-length-plus-depth"


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False, emoji=False)


def printed(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_check_cuts_no_name_and_keeps_words_readable(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    out = terminal(width)
    monkeypatch.setattr(check_command, "console", lambda: out)
    check_command.print_report(check_trace(FAULTY), verbose=False)
    text = printed(out)
    assert LONG_ID in text
    assert "…" not in text
    witness = "turn 0, step 0: slot 2: position 31, wanted 30 = 29 + depth 1 (line 3)"
    assert witness in re.sub(r"\s+", " ", text)
    if width == PLAIN_WIDTH:
        assert any(witness in line for line in text.splitlines())
    if width == 80:
        assert f"    {LONG_ID}: 53 failed\n        {witness}\n" in text
        assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("width", [40, 80, 200])
def test_diff_cuts_nothing_of_its_roots_and_wraps_no_command(width: int) -> None:
    out = terminal(width)
    report = Report(diff_traces(EAGER, FAULTY), TokenTexts(None))
    print_verdict(out, report)
    text = printed(out)
    commands = re.sub(r" \\\n +", " ", text).splitlines()
    for command in report.verdict.next:
        assert any(line.rstrip().endswith(command) and "│" not in line for line in commands)
    roots = text[text.index("\n  root") + 1 :].splitlines()
    assert "…" not in "".join(roots)
    if width < 80:
        assert roots == [
            "  root 1  at 0/0  prompt function",
            "    tensors: positions, structural, 5",
            "    inherited",
            "  root 2  at 1/0  prompt class  tensors:",
            "    positions, structural, 23 inherited",
        ]
    else:
        assert roots[0].split() == ["root", "at", "prompt", "phase", "field", "kind", "inherited"]


@pytest.mark.parametrize("width", [60, 80, 110])
def test_what_surrounds_the_card_is_wrapped_within_its_column(width: int) -> None:
    out = terminal(width)
    print_verdict(out, Report(diff_traces(EAGER, FAULTY), TokenTexts(None)))
    lines = printed(out).splitlines()
    begins = next(at for at, line in enumerate(lines) if line.startswith("  acceptance rule"))
    ends = next(at for at, line in enumerate(lines) if line.startswith("  root"))
    notes = lines[begins:ends]
    assert all(len(line) <= width for line in notes)
    assert {line[:2] + line[18:19] for line in notes} == {"   "}, "names and values each begin in their column"
    assert any(not line[:19].strip() for line in notes), "some are longer than a line"
    plain = terminal(200)
    print_verdict(plain, Report(diff_traces(EAGER, FAULTY), TokenTexts(None)))
    words = " ".join(line[19:].strip() for line in notes)
    assert all(line[19:] in words for line in printed(plain).splitlines() if line.startswith("  noise floor"))


def test_a_pipe_has_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readline, which any Python program may load, sets 80 for its children."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert console_module.console().width == 200


def piped(encoding: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "specscope", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, cwd="/", check=False
    )


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_a_pipe_that_knows_few_characters_gets_ascii_for_the_others(encoding: str) -> None:
    done = piped(encoding, "show", EAGER, "--step", "0")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert text.startswith("* "), "the tick of the accepted path"
    assert "bonus token" in text
    assert piped(encoding, "diff", EAGER, FAULTY).returncode == 1
    assert piped(encoding, "check", EAGER, FAULTY).returncode == 1


@pytest.mark.parametrize("encoding", ["cp1252", "cp437"])
def test_what_programs_read_is_utf_8_in_any_pipe(encoding: str) -> None:
    pages = {}
    for form in ("json", "junit", "github", "markdown", "html"):
        done = piped(encoding, "diff", EAGER, FAULTY, "--format", form)
        assert (done.returncode, done.stderr) == (1, b"")
        pages[form] = done.stdout.decode()
    assert json.loads(pages["json"])["verdict"] == "different"
    assert ElementTree.fromstring(pages["junit"].encode()).tag == "testsuites"
    assert "❌" in pages["markdown"]


def test_only_large_files_on_a_terminal_have_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.StringIO()
    monkeypatch.setattr(console_module, "Console", lambda **_: Console(file=page, force_terminal=True, width=80))
    with console_module.reading("checking", [EAGER]) as watch:
        assert watch is None, "a small file"
    monkeypatch.setattr(console_module, "LARGE_BYTES", 1000)
    monkeypatch.setattr(console_module, "DRAWN_BYTES", 1000)
    seen: list[int] = []
    with console_module.reading("comparing", [EAGER, FUSED], passes=2) as watch:
        assert watch is not None
        advance = watch

        def count(num_bytes: int) -> None:
            seen.append(num_bytes)
            advance(num_bytes)

        verdict = diff_traces(EAGER, FUSED, watch=count)
    assert verdict == diff_traces(EAGER, FUSED)
    assert "comparing" in page.getvalue()
    size = EAGER.stat().st_size + FUSED.stat().st_size
    assert size * 2 - 10 < sum(seen) <= size * 2
    monkeypatch.setattr(console_module, "Console", lambda **_: Console(file=page, force_terminal=False))
    with console_module.reading("checking", [EAGER]) as watch:
        assert watch is None, "a pipe"


def test_an_interrupt_says_what_was_kept() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, console_module.keeping("the trace t.jsonl is kept"):
        raise KeyboardInterrupt
    assert main_module._interrupted(caught.value) == "interrupted; the trace t.jsonl is kept"
    abort = click.exceptions.Abort()
    abort.__cause__ = caught.value
    assert main_module._interrupted(abort) == "interrupted; the trace t.jsonl is kept"
    assert main_module._interrupted(KeyboardInterrupt()) == "interrupted"
