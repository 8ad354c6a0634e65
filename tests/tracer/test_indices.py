"""Index tensors that name what they hold, and the root's log-probability, are held against the tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.traces import FUSED, load, store

from specscope.tracer.oracle.check import check_trace

Step = dict[str, Any]
INDICES = "tensors.indices-are-the-trees"


def witness(tmp_path: Path, change: Callable[[Step], object], invariant: str) -> str:
    """What is said of the sample trace with its second step changed, which violates nothing else."""
    lines = load(FUSED)
    change(next(line for line in lines if line["kind"] == "step" and line["step"] == 1))
    report = check_trace(store(lines, tmp_path / "changed.jsonl"))
    assert report.num_violations == 1
    first = report.invariants[invariant].first
    assert first is not None
    return first.witness


def test_parents_that_are_not_the_trees_are_a_violation(tmp_path: Path) -> None:
    def change(step: Step) -> None:
        step["tensors"]["index_tensors"]["parents"][3] = 2

    assert witness(tmp_path, change, INDICES) == "parents of slot 3: got 2, wanted 0"


@pytest.mark.parametrize("level", [0, 1, 2])
def test_ancestors_that_are_not_the_trees_are_a_violation(tmp_path: Path, level: int) -> None:
    def change(step: Step) -> None:
        width = step["tensors"]["padded_slots"]
        step["tensors"]["index_tensors"]["ancestors"][level * width + 3] = 9

    words = witness(tmp_path, change, INDICES)
    assert words.startswith(f"ancestors {level} levels above slot 3: got 9, wanted ")


@pytest.mark.parametrize("name", ["logprobs", "scores"])
def test_a_root_with_a_score_is_a_violation(tmp_path: Path, name: str) -> None:
    def change(step: Step) -> None:
        step["tree"][name][0] = "Infinity"

    assert witness(tmp_path, change, "tree.scores-add-up").startswith("the root has log-probability ")


def test_index_tensors_of_other_names_are_only_held_to_the_slots(tmp_path: Path) -> None:
    lines = load(FUSED)
    for line in lines:
        if line["kind"] == "step":
            line["tensors"]["index_tensors"] = {"retrieve_indices": [0, 1, 2]}
    assert check_trace(store(lines, tmp_path / "other.jsonl")).num_violations == 0
