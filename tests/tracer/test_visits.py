"""What a greedy walk says that it wanted is the teacher's choice at the node where it stood."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.traces import FUSED, load, store

from specscope.tracer.oracle.check import check_trace


@pytest.mark.parametrize("at", [0, -1])
def test_a_visit_that_wanted_another_token_is_a_violation(tmp_path: Path, at: int) -> None:
    lines = load(FUSED)
    step = next(line for line in lines if line["kind"] == "step" and len(line["accept"]["visited"]) > 1)
    visit = step["accept"]["visited"][at]
    choice = visit["wanted"]
    visit["wanted"] += 1
    report = check_trace(store(lines, tmp_path / "changed.jsonl"))
    assert report.num_violations == 1
    first = report.invariants["accept.walk"].first
    assert first is not None
    assert first.witness == f"at slot {visit['slot']} it wanted {choice + 1}, the teacher's choice there is {choice}"


def test_visits_that_do_not_say_what_they_wanted_break_nothing(tmp_path: Path) -> None:
    lines = load(FUSED)
    for line in lines:
        for visit in line.get("accept", {}).get("visited", ()):
            visit.pop("wanted")
    assert check_trace(store(lines, tmp_path / "bare.jsonl")).num_violations == 0
