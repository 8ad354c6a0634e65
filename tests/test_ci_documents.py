"""Every ``specscope`` command in the documents and their examples is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from support.traces import ROOT

from specscope.tracer.cli.main import cli
from specscope.tracer.report.formats import FORMATS, parse_target

DOCUMENTS = [
    ROOT / "docs" / "ci.md",
    *sorted(path for path in (ROOT / "docs" / "examples").iterdir() if path.suffix == ".yml"),
]
OTHERS = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "ci.md")]


def command_lines(document: Path) -> list[str]:
    """The lines that run ``specscope``, without what a list or a key puts before them."""
    found = []
    for line in document.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"\s*(?:- |run: |- run: )?(specscope [a-z].*)", line)
        if match:
            found.append(match[1])
        found += re.findall(r"`(specscope [a-z-]+ [^`]*[A-Z-][^`]*)`", line) if not match else []
    return found


def parsed(line: str) -> click.Context:
    """The context of the line's command, made by its real parser; nothing runs."""
    words = shlex.split(line.split(" >> ", maxsplit=1)[0])[1:]
    group = cli.make_context("specscope", words[:1], resilient_parsing=True)
    command = cli.get_command(group, words[0])
    assert command is not None, words[0]
    return command.make_context(words[0], words[1:], parent=group)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_parses(document: Path) -> None:
    lines = [
        line.replace(" FORMAT", " json").replace("=FILE", "=x").replace("ARGUMENTS", "")
        for line in command_lines(document)
    ]
    assert len(lines) >= 5
    for line in lines:
        with parsed(line) as context:
            outs = context.params.get("outs", ())
        assert [parse_target(value).form for value in outs] == [value.split("=")[0] for value in outs]


def concrete(line: str) -> str:
    """The line without its comment and its optional parts, and with values for its placeholders."""
    line = re.sub(r"\s*\[[^]]*\]|\.\.\.", "", line.split("  #", maxsplit=1)[0])
    for placeholder, value in (("--turn T", "--turn 0"), ("--step N", "--step 0"), ("TURN/STEP", "0/0")):
        line = line.replace(placeholder, value)
    return line


@pytest.mark.parametrize("document", OTHERS, ids=lambda path: path.name)
def test_every_command_line_of_the_other_documents_parses(document: Path) -> None:
    for line in command_lines(document):
        with parsed(concrete(line)):
            pass


def test_most_documents_have_commands() -> None:
    assert sum(bool(command_lines(document)) for document in OTHERS) >= 7


def test_a_command_line_that_is_none_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parsed("specscope diff a.jsonl b.jsonl --out-file x")
    with pytest.raises(click.UsageError):
        parsed("specscope diff a.jsonl b.jsonl --format pdf")
    with pytest.raises(AssertionError):
        parsed("specscope compare a.jsonl b.jsonl")


def test_every_format_is_documented() -> None:
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "ci.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(FORMATS) <= set(table)


def test_the_example_compares_fused_with_eager_and_keeps_the_reports() -> None:
    text = (ROOT / "docs" / "examples" / "github-actions.yml").read_text(encoding="utf-8")
    for words in (
        "--mode eager",
        "--mode fused",
        "--format github --out junit=reports/specscope.xml --out markdown=$GITHUB_STEP_SUMMARY",
        "if: always()",
        "actions/upload-artifact",
    ):
        assert words in text
