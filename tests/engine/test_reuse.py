"""A prompt that was taken in anew, instead of out of an earlier turn's cache, is said, and blames nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.called import specscope
from support.recorded_runs import TALKS, TinyRuns
from support.traces import load, store

from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.report.card import reuse_texts


@pytest.fixture
def talk(teacher_folder: Path, head_folder: Path, tmp_path: Path) -> Path:
    return TinyRuns(teacher_folder, head_folder, tmp_path)("talk", prompts=TALKS, tokens=12)


def reused(trace: Path) -> int:
    return sum(line["reused_length"] for line in load(trace) if line["kind"] == "turn_start")


def without_reuse(trace: Path, path: Path) -> Path:
    """A copy whose every turn was fed its whole prompt; the drafter's rows, which would be more then, are left out."""
    lines = load(trace)
    lines[0]["capabilities"].remove("draft")
    for line in lines:
        line.pop("draft", None)
        if line["kind"] == "turn_start":
            line["prefill"]["num_tokens"] += line["reused_length"]
            line["reused_length"] = 0
            line["held"] = {"committed_length": 0, "num_pairs": 0}
    return store(lines, path)


def test_lost_reuse_is_a_row_of_the_card_and_no_difference(talk: Path, tmp_path: Path) -> None:
    lost = without_reuse(talk, tmp_path / "lost.jsonl")
    assert not check_trace(lost).num_violations
    verdict = diff_traces(talk, lost)
    impact = verdict.impact
    assert (impact.num_reused_a, impact.num_reused_b) == (reused(talk), 0)
    assert impact.num_reused_a > 0
    assert (verdict.verdict, verdict.exit_code) == ("equal", 0)
    shown = specscope("diff", str(talk), str(lost))
    assert shown.code == 0
    assert f"{reused(talk)} -> 0 tokens of the prompts" in shown.out


def test_nothing_is_said_of_reuse_that_both_have(talk: Path, tmp_path: Path) -> None:
    impact = diff_traces(talk, store(load(talk), tmp_path / "copy.jsonl")).impact
    assert impact.num_reused_a == impact.num_reused_b == reused(talk)
    assert reuse_texts(impact) == []


def test_turns_after_one_that_was_allowed_to_be_longer_are_not_compared_and_fail_nothing(
    teacher_folder: Path, head_folder: Path, tmp_path: Path
) -> None:
    runs = TinyRuns(teacher_folder, head_folder, tmp_path)
    short, long = (runs(f"of {tokens}", prompts=TALKS, tokens=tokens) for tokens in (6, 11))
    done = specscope("diff", short, long, "--allow", "stop_rules.max_new_tokens")
    assert done.code == 0
    assert "its context holds what was allowed to differ" in done.out
    assert "nothing that was recorded says where" not in done.out
