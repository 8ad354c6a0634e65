"""How to record one's own engine: the toy runs, its bug is found, and programs in other languages write traces."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from support.called import specscope
from support.traces import ROOT, load

from specscope.schemas import AcceptSection, CommitSection
from specscope.schemas.unknown import unknown_fields
from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.registry import STATEMENTS

EXAMPLES = ROOT / "docs" / "examples"
TOY = EXAMPLES / "toy_engine.py"
DOCUMENT = (ROOT / "docs" / "record-your-engine.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's two traces: good.jsonl and bug.jsonl."""
    traces = tmp_path_factory.mktemp("toy")
    for arguments in (["good.jsonl"], ["bug.jsonl", "--bug"]):
        subprocess.run([sys.executable, str(TOY), *arguments], cwd=traces, check=True, capture_output=True)
    return traces


def test_the_document_shows_lines_of_the_toy_and_it_is_short() -> None:
    toy = TOY.read_text(encoding="utf-8")
    assert len(toy.splitlines()) <= 150
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        assert block in toy
    marked = [line for line in toy.splitlines() if line.endswith("# record")]
    assert [line for line in marked if line not in DOCUMENT] == ["from specscope.tracer import Recorder  # record"]


def test_the_commit_shown_is_one_that_the_format_has() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    commit = CommitSection.model_validate_json(block)
    assert list(unknown_fields(commit)) == []
    assert commit.committed_after == commit.committed_before + len(commit.source_slots)
    named = set(re.findall(r"`(commit\.[a-z-]+)`", DOCUMENT)) - {"commit"}
    assert {"commit.content-moved", "commit.prefix-kept", "commit.prefix-unchanged"} <= named <= STATEMENTS.keys()


def test_the_rules_named_are_those_of_the_format() -> None:
    named = re.findall(r"`(\w+)`", DOCUMENT.partition("#sampling) are ")[2].partition(".")[0])
    rule = AcceptSection.model_fields["rule"].annotation
    assert set(named) == set(get_args(rule))


def test_the_toys_trace_is_sound_and_drafts_hold_and_fail(folder: Path) -> None:
    report = check_trace(folder / "good.jsonl")
    assert (report.num_violations, report.end_reason) == (0, "complete")
    assert report.invariants["tensors.mask-is-ancestors"].passed == report.num_steps
    steps = [line for line in load(folder / "good.jsonl") if line["kind"] == "step"]
    assert {step["accept"]["accepted_length"] for step in steps} >= {0, 2}
    assert any(len(set(step["tree"]["parents"])) < len(step["tree"]["parents"]) - 1 for step in steps), (
        "a tree branches"
    )


def test_the_toys_output_is_that_of_its_teacher_alone(folder: Path) -> None:
    toy = {"__name__": "toy"}
    exec(compile(TOY.read_text(encoding="utf-8"), str(TOY), "exec"), toy)
    ends = [line["output_ids"] for line in load(folder / "good.jsonl") if line["kind"] == "turn_end"]
    for prompt, output in zip(toy["PROMPTS"].values(), ends, strict=True):  # type: ignore[attr-defined]
        context = list(prompt)
        for _ in output:
            context.append(toy["best"](toy["Teacher"]().scores(*context[-2:])))  # type: ignore[operator]
        assert context[len(prompt) :] == output


def test_the_toys_bug_is_named_and_blamed(folder: Path) -> None:
    verdict = diff_traces(folder / "good.jsonl", folder / "bug.jsonl")
    root = verdict.roots[0]
    assert (verdict.verdict, root.difference.phase, root.difference.field, root.wrong) == (
        *("different", "tensors", "mask"),
        "candidate",
    )
    card = specscope("diff", "good.jsonl", "bug.jsonl", cwd=folder)
    assert card.code == 1
    assert "hides its ancestor" in card.out
    assert {blame.invariant for blame in verdict.violations} == {"tensors.mask-is-ancestors"}


COMPILERS = {
    "write_trace.cpp": ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror"],
    "write_trace.rs": ["rustc", "-D", "warnings"],
}


@pytest.mark.parametrize("name", COMPILERS)
def test_a_program_in_another_language_writes_the_formats_example(tmp_path: Path, name: str) -> None:
    compiler = COMPILERS[name]
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]} here")
    program, trace = tmp_path / "program", tmp_path / "run.jsonl"
    done = subprocess.run([*compiler, str(EXAMPLES / name), "-o", str(program)], capture_output=True, text=True)
    if done.returncode and "can't find crate for `std`" in done.stderr:
        pytest.skip("rustc without its library")
    assert done.returncode == 0, done.stderr
    subprocess.run([program, trace], check=True)
    report = check_trace(trace)
    assert (report.num_violations, report.num_steps) == (0, 2)
    assert report.invariants["run.digest"].why_skipped == "not recorded: run_end.digest"
    assert subprocess.run([program, trace], capture_output=True).returncode != 0, "an existing trace is kept"
    document = (ROOT / "docs" / "trace-format.md").read_text(encoding="utf-8")
    example = tmp_path / "example.jsonl"
    example.write_text(re.findall(r"^```jsonl\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)[0], encoding="utf-8")
    wanted = [line for line in load(example)[1:-1] if line.pop("seq") or True]
    assert [line for line in load(trace)[1:-1] if line.pop("seq") or True] == wanted
