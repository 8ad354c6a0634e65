"""What budgets came to: which runs are drawn, where, which are joined, and where a click leads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.pairs import SVG
from support.traces import EAGER

from specscope.viewer.runs.catalogue import Run
from specscope.viewer.runs.summary import RunSummary, summarise
from specscope.viewer.runs.sweep import BUDGET, MOST_NAMED, sweep_card, swept
from specscope.viewer.runs.table import RunList, run_board

Budgeted = Callable[..., RunSummary]


@pytest.fixture(scope="module")
def budgeted() -> Budgeted:
    """Makes a run of a budget that accepted so many nodes."""
    whole = summarise(Run("a.jsonl", EAGER))
    assert isinstance(whole, RunSummary)

    def make(
        budget: object, accepted: float | None = 2.0, speed: float | None = 10.0, mode: str = "eager"
    ) -> RunSummary:
        assert whole.outcome is not None
        outcome = whole.outcome._replace(accepted_length=accepted, tokens_per_second=speed)
        fields = {**whole.fields, BUDGET: str(budget), "mode": mode}
        return whole._replace(run=Run(f"<b>{budget}.jsonl", Path("x")), outcome=outcome, fields=fields)

    return make


def drawn(runs: list[RunSummary]) -> ElementTree.Element:
    return ElementTree.fromstring(sweep_card(runs))


def test_runs_that_differ_in_their_budget_alone_are_joined(budgeted: Budgeted) -> None:
    runs = [budgeted(16, 2.0), budgeted(4, 1.0), budgeted(8, 4.0), budgeted(8, 3.0, mode="fused")]
    card = drawn(runs)
    points = [group for group in card.iter(f"{SVG}g") if group.get("class") == "run"]
    assert [point.get("data-do") for point in points] == ["run:1", "run:2", "run:3", "run:0"] * 2
    assert points[0].get("aria-label") == "<b>4.jsonl: budget 4, accepted length 1.000, 10.0 tokens per second"
    joins = [line for line in card.iter(f"{SVG}line") if line.get("class") == "join"]
    assert len(joins) == 4, "4, 8 and 16 of one mode, in both panels"
    circles = [point[1] for point in points[:4]]
    assert [float(circle.get("cx", "")) for circle in circles] == [44.0, 304.0, 304.0, 564.0], "by powers of two"
    heights = [float(circle.get("cy", "")) for circle in circles]
    assert heights[1] < heights[2] < heights[3] < heights[0], "more is higher up"


@pytest.mark.parametrize(
    "others",
    [[], [16], ["many"], [0], [10**12], ["9" * 50]],
    ids=["alone", "equal", "no number", "none", "too large", "far too large"],
)
def test_without_two_budgets_there_is_nothing_to_draw(budgeted: Budgeted, others: list[object]) -> None:
    assert sweep_card([budgeted(16), *map(budgeted, others)]) == ""


def test_what_was_not_recorded_is_left_out(budgeted: Budgeted) -> None:
    runs = [budgeted(4), budgeted(8, None), budgeted(16)._replace(outcome=None), budgeted(32, speed=None)]
    assert [run.budget for run in swept(runs)] == [4, 32]
    assert sweep_card([budgeted(4, speed=None), budgeted(8, speed=None)]).count('class="title"') == 1


def test_many_names_are_left_to_pointing_at_them(budgeted: Budgeted) -> None:
    few = [budgeted(2**power) for power in range(MOST_NAMED)]
    assert sweep_card(few).count('class="name"') == 2 * MOST_NAMED
    assert 'class="name"' not in sweep_card([*few, budgeted(3)])


def test_the_page_of_runs_has_it(budgeted: Budgeted) -> None:
    runs = [budgeted(4), budgeted(8)]
    assert "What budgets came to" in run_board(RunList(runs=runs, folders=[("", [0, 1])])).html
