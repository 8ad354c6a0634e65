"""Where a point of a chart leads: to the steps that it counts, or to the step at which what it stands for begins."""

from __future__ import annotations

from collections.abc import Callable

from specscope.viewer.metrics.numbers import RunMetrics
from specscope.viewer.metrics.rows import ChartRow
from specscope.viewer.screens.view import View

#: Changes the view to where a point of a run leads.
Leads = Callable[[View, RunMetrics, ChartRow], None]


def _find(view: View, words: str) -> None:
    view.page, view.find = "find", words


def find_length(view: View, run: RunMetrics, row: ChartRow) -> None:
    """The steps that accepted as many nodes."""
    del run
    _find(view, f"accepted:{row.x}")


def find_depth(view: View, run: RunMetrics, row: ChartRow) -> None:
    """The steps that accepted a node of that depth."""
    del run
    _find(view, f"accepted:>={row.x}")


def find_position(view: View, run: RunMetrics, row: ChartRow) -> None:
    """The steps that began at these committed lengths."""
    assert run.positions is not None
    first, last = run.positions.first[row.at], run.positions.last[row.at]
    _find(view, f"committed:>={first} committed:<={last}")


def open_recorded(view: View, run: RunMetrics, row: ChartRow) -> None:
    """The first of a range of steps in the order of the records."""
    assert run.course is not None
    place = run.course.begins[row.at]
    view.page = "step"
    view.look_at(run.name, place.turn, place.step)


def open_turn(view: View, run: RunMetrics, row: ChartRow) -> None:
    """The first step of a turn."""
    view.page = "step"
    view.look_at(run.name, int(row.x), 0)
