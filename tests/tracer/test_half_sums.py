"""Sums of log-probabilities in half precision: an engine that adds them up in its own dtype chooses by rounded sums,
and is right to. One that leaves out what is clearly better is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.traces import FUSED, Lines, load, store

from specscope.schemas import Manifest, Step, TurnStart
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.base import HALF_DIGITS, Context
from specscope.tracer.oracle.invariants.selection import are_near

RULES = ("tree.best-of-candidates", "draft.frontier-is-best", "tree.scores-add-up")


def rounded(value: float, dtype: str) -> float:
    """The nearest number of ``dtype``, far from its limits."""
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(fraction, HALF_DIGITS[dtype])), exponent - HALF_DIGITS[dtype])


def drafted_in(dtype: str) -> Lines:
    """A run whose drafter's log-probabilities and their sums are numbers of ``dtype``."""
    lines = load(FUSED)
    lines[0]["dtype"] = dtype
    for step in (line for line in lines if line["kind"] == "step"):
        for level in step["draft"]["levels"]:
            level["logprobs"] = [rounded(value, dtype) for value in level["logprobs"]]
            level.pop("logsumexp", None)
        tree = step["tree"]
        tree["logprobs"] = [rounded(value, dtype) for value in tree["logprobs"]]
        for slot in range(1, len(tree["tokens"])):
            tree["scores"][slot] = rounded(tree["scores"][tree["parents"][slot]] + tree["logprobs"][slot], dtype)
    return lines


def failed(lines: Lines, path: Path) -> set[str]:
    report = check_trace(store(lines, path))
    return {name for name in RULES if report.invariants[name].failed}


@pytest.mark.parametrize("dtype", list(HALF_DIGITS))
def test_rounded_sums_decide_and_are_right_to(dtype: str, tmp_path: Path) -> None:
    lines = drafted_in(dtype)
    assert failed(lines, tmp_path / "half.jsonl") == set()
    lines[0]["dtype"] = "float32"
    assert "tree.scores-add-up" in failed(lines, tmp_path / "single.jsonl"), "in float32 these sums would be wrong"


def roundings(value: float, dtype: str, count: int) -> float:
    """So many roundings at the size of ``value``."""
    return count * math.ldexp(1.0, math.frexp(value)[1] - HALF_DIGITS[dtype])


def first_step(lines: Lines) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "step")


@pytest.mark.parametrize("dtype", list(HALF_DIGITS))
def test_a_score_two_roundings_off_is_found(dtype: str, tmp_path: Path) -> None:
    lines = drafted_in(dtype)
    scores = first_step(lines)["tree"]["scores"]
    scores[-1] -= roundings(scores[-1], dtype, 2)
    assert failed(lines, tmp_path / "sums.jsonl") == {"tree.scores-add-up"}


@pytest.mark.parametrize("dtype", list(HALF_DIGITS))
def test_each_addition_has_half_a_rounding_of_room(dtype: str) -> None:
    lines = drafted_in(dtype)
    manifest, step = Manifest.model_validate(lines[0]), Step.model_validate(first_step(lines))
    turn = TurnStart.model_validate(next(line for line in lines if line["kind"] == "turn_start"))
    context = Context(manifest=manifest, turn=turn, previous=None, step=step)
    unit = roundings(-2.5, dtype, 1)
    assert not are_near(context, -2.5, -2.5 - unit, additions=0), "candidates of the first level are no sums"
    assert not are_near(context, -2.5, -2.5 - unit, additions=1)
    assert are_near(context, -2.5, -2.5 - unit, additions=2)
    assert not are_near(context, -2.5, -2.5 - 3 * unit, additions=5)


@pytest.mark.parametrize("dtype", list(HALF_DIGITS))
def test_what_is_clearly_better_may_not_be_left_out(dtype: str, tmp_path: Path) -> None:
    lines = drafted_in(dtype)
    step = first_step(lines)
    last, kept = step["draft"]["levels"][-1], set(step["tree"]["tokens"])
    at = next(at for at, token in enumerate(last["tokens"]) if token not in kept)
    last["logprobs"][at] = 4.0
    assert "tree.best-of-candidates" in failed(lines, tmp_path / "left-out.jsonl")


@pytest.mark.parametrize("dtype", list(HALF_DIGITS))
def test_log_probabilities_that_are_finer_than_the_dtype_were_not_summed_in_it(dtype: str, tmp_path: Path) -> None:
    """As this engine's, which are computed in float32 whatever the teacher's dtype."""
    lines = drafted_in(dtype)
    for step in (line for line in lines if line["kind"] == "step"):
        step["draft"]["levels"][0]["logprobs"][0] += 1e-5
    assert "tree.scores-add-up" in failed(lines, tmp_path / "fine.jsonl")
