"""Recorded draws beside copies of them that no noise can have made: what was weighed is held together, not excused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.traces import Lines, load, store

from specscope.tracer import check_trace, diff_traces

Step = dict[str, Any]
PROMPT = ("--prompt", "def parse(line):\n    return line.split()\n", "--max-new-tokens", "40", "--seed", "3")
RULES = {
    "sampled": ("--temperature", "0.9", "--draft-sampling", "--tree", "static:bush-16"),
    "typical": ("--temperature", "0.9", "--typical"),
    "block": ("--temperature", "0.9", "--draft-sampling", "--tree", "chain", "--block-verification"),
}


@pytest.fixture(scope="module", params=RULES)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Lines]:
    trace = tmp_path_factory.mktemp("drawn") / f"{request.param}.jsonl"
    done = specscope("run", "--device", "cpu", *PROMPT, *RULES[request.param], "--trace", trace)
    assert done.code == 0, done.err
    return request.param, load(trace)


def trials(lines: Lines) -> Iterator[tuple[list[Step], int]]:
    """Every list of trials at one node, with the places in it."""
    for line in lines:
        for visit in line.get("accept", {}).get("visited", []) if line["kind"] == "step" else []:
            for number in range(len(visit.get("trials", []))):
                yield visit["trials"], number


def behind_a_rejection(lines: Lines) -> None:
    """The thresholds of younger siblings, as if what is left had not been renormalised."""
    for of_node, number in trials(lines):
        if number and 0 < of_node[number]["threshold"] < 0.6:
            of_node[number]["threshold"] *= 1.5


def every_threshold(lines: Lines) -> None:
    """As if an entropy were in bits."""
    for of_node, number in trials(lines):
        of_node[number]["threshold"] *= 0.6


def every_mass(lines: Lines) -> None:
    """A fifth too small."""
    for of_node, number in trials(lines):
        if "residual_mass" in of_node[number]:
            of_node[number]["residual_mass"] *= 0.8


WRONG: dict[str, tuple[Callable[[Lines], None], str]] = {
    "sampled": (behind_a_rejection, "trials.threshold"),
    "typical": (every_threshold, "trials.threshold"),
    "block": (every_mass, "trials.residual_mass"),
}


def test_what_no_noise_can_have_made_of_a_threshold_is_real(drawn: tuple[str, Lines], tmp_path: Path) -> None:
    rule, lines = drawn
    spoil, field = WRONG[rule]
    wrong = copy.deepcopy(lines)
    spoil(wrong)
    assert wrong != lines
    honest = store(lines, tmp_path / "a.jsonl")
    assert diff_traces(honest, store(lines, tmp_path / "b.jsonl")).verdict == "equal"
    verdict = diff_traces(honest, store(wrong, tmp_path / "wrong.jsonl"))
    first = verdict.roots[0].difference
    assert (verdict.verdict, first.field, first.kind) == ("different", field, "real")


@pytest.mark.parametrize("drawn", ["typical"], indirect=True)  # the others draw from what rejections leave
def test_a_bonus_token_has_the_share_that_its_logit_gives_it(drawn: tuple[str, Lines], tmp_path: Path) -> None:
    _, lines = drawn
    wrong = copy.deepcopy(lines)
    step = next(line for line in wrong if line["kind"] == "step" and "bonus_draw" in line["accept"])
    draw = step["accept"]["bonus_draw"]
    draw["high"] = min(1.0, draw["low"] + 3 * (draw["high"] - draw["low"]))
    assert not check_trace(store(lines, tmp_path / "a.jsonl")).num_violations
    report = check_trace(store(wrong, tmp_path / "wrong.jsonl"))
    assert [name for name, tally in report.invariants.items() if tally.failed]
