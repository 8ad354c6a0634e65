"""Traces of pipelined runs beside those of other engines: compared without --allow, and never run again."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.called import specscope
from support.pipeline_mutants import PIPELINE_RUN
from support.pipeline_runs import record_alone, record_pipeline, record_trees
from support.traces import load, store

from specscope.engine.lab.faults.pipeline import find_pipeline_fault
from specscope.engine.settings import GREEDY
from specscope.tracer.compare.diff import diff_traces


@pytest.fixture
def alone(teacher_folder: Path, tmp_path: Path) -> Path:
    return record_alone(teacher_folder, tmp_path / "alone.jsonl", GREEDY)


def test_an_honest_pipeline_is_equal_to_every_other_engine(alone: Path, teacher_folder: Path, tmp_path: Path) -> None:
    pipelined = record_pipeline(alone, teacher_folder, GREEDY)
    trees = record_trees(teacher_folder, tmp_path / "trees.jsonl")
    assert any(line["accept"]["path"] for line in load(trees) if line["kind"] == "step"), "steps of several tokens"
    for other in (alone, trees):
        for pair in ((other, pipelined), (pipelined, other)):
            verdict = diff_traces(*pair)
            assert (verdict.incomparable, verdict.roots, verdict.uncovered, verdict.exit_code) == ([], [], [], 0)
            assert verdict.impact.tokens_equal
    beside = diff_traces(alone, pipelined)
    assert beside.verdict == "equal", "tokens and acceptance were compared"
    assert any("pipeline" in line and "3 stages" in line for line in beside.axis)


def test_another_number_of_stages_changes_nothing(tmp_path: Path) -> None:
    lines = load(PIPELINE_RUN)
    lines[0]["pipeline"]["stages"] = lines[0]["pipeline"]["stages"][:2]
    lines[0]["pipeline"]["stages"][0]["clock_offset_ns"] = 17
    lines[0]["run_id"] = "another"
    verdict = diff_traces(PIPELINE_RUN, store(lines, tmp_path / "two.jsonl"))
    assert (verdict.incomparable, verdict.roots) == ([], [])
    assert [line for line in verdict.axis if line.startswith("pipeline")] == ["pipeline.stages: 3 stages -> 2 stages"]


def output_of(trace: Path) -> list[int]:
    """Of its first turn."""
    output: list[int] = next(line["output_ids"] for line in load(trace) if line["kind"] == "turn_end")
    return output


@pytest.mark.parametrize("name", ["P04", "P06"])
def test_a_fault_is_a_root_beside_trees_and_beside_single_tokens(
    alone: Path, teacher_folder: Path, tmp_path: Path, name: str
) -> None:
    """Both put it at the same token: the first that differs."""
    trees = record_trees(teacher_folder, tmp_path / "trees.jsonl")
    broken = record_pipeline(alone, teacher_folder, GREEDY, find_pipeline_fault(name))
    outputs = [output_of(path) for path in (trees, broken)]
    first = next(index for index, (ours, theirs) in enumerate(zip(*outputs, strict=True)) if ours != theirs)
    verdict = diff_traces(trees, broken)
    assert verdict.exit_code == 1
    difference = verdict.roots[0].difference
    assert difference.phase == "verify"
    if difference.field == "argmax":
        assert verdict.roots[0].place.step_b == first - 1
        assert (difference.a, difference.b) == tuple(str(output[first]) for output in outputs)


REFUSAL = (
    "is of a pipelined run, whose stages cannot be run again from a trace: decode its prompts again with specscope"
)


@pytest.mark.parametrize("command", ["replay", "repro", "bisect"])
def test_what_runs_steps_again_refuses_it_in_one_line(tmp_path: Path, command: str) -> None:
    others: dict[str, list[str | Path]] = {
        "replay": ["--out", tmp_path / "again.jsonl"],
        "bisect": [PIPELINE_RUN, "--at", "0/1"],
    }
    done = specscope(command, PIPELINE_RUN, *others.get(command, []))
    assert (done.code, done.out) == (2, "")
    assert REFUSAL in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "again.jsonl").exists()


@pytest.mark.parametrize(("prob", "verdict"), [(0.9, "different"), (0.5, "ties")])
def test_two_drafts_tie_only_where_one_head_can_have_been_undecided(tmp_path: Path, prob: float, verdict: str) -> None:
    """Two heads that are as sure, of two tokens, differ; two that gave each of them a half may be the same one."""
    paths = []
    for number in (0, 1):
        lines = load(PIPELINE_RUN)
        lines[0]["run_id"] = f"run {number}"
        drafted = [line["pipeline"] for line in lines if line["kind"] == "step" and refuted(line["pipeline"])]
        drafted[0] |= {"draft_token": 60 + number, "draft_prob": prob}
        paths.append(store(lines, tmp_path / f"{number}.jsonl"))
    assert diff_traces(paths[0], paths[1]).verdict == verdict


def refuted(pipeline: dict[str, object]) -> bool:
    return pipeline.get("accepted") is False
