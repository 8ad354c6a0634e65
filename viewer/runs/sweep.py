"""What budgets came to: accepted length and speed of the listed runs against their budgets, as a card. Pure.

A click on a point asks for ``run:N``, as the lines of the list do. Runs that differ in nothing but their budget, as far
as their manifests say, are joined by a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import quiet
from specscope.viewer.drawing.frames import attribute, scrolled
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.runs.differing import differing_fields
from specscope.viewer.runs.summary import RunSummary

BUDGET = "tree_policy.budget"
#: Of one panel, and what is left around its plot.
WIDTH, HEIGHT = 590.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 26.0, 30.0, 40.0
#: With more points, names would cover each other.
MOST_NAMED = 8
#: Larger numbers are of no real run, and cannot be drawn.
LARGEST = 1e9


class SweepRun(NamedTuple):
    """One run with a budget."""

    place: int  # in the list
    name: str
    budget: int
    accepted: float
    speed: float | None
    alike: tuple[str, ...]  # equal for runs that differ in nothing but their budget

    @property
    def words(self) -> str:
        """All that a point stands for."""
        speed = "" if self.speed is None else f", {self.speed:,.1f} tokens per second"
        return f"{self.name}: budget {self.budget}, accepted length {self.accepted:.3f}{speed}"


def swept(runs: Sequence[RunSummary]) -> list[SweepRun]:
    """The runs that drafted trees and are indexed, by budget; empty where they have only one budget."""
    others = [field.values for field in differing_fields([run.fields for run in runs]) if field.name != BUDGET]
    drawn = []
    for place, run in enumerate(runs):
        budget, outcome = run.fields.get(BUDGET, ""), run.outcome
        if outcome is None or outcome.accepted_length is None or not budget.isdecimal():
            continue
        if 0 < int(budget) < LARGEST and outcome.accepted_length < LARGEST:
            alike = tuple(values[place] for values in others)
            drawn.append(
                SweepRun(
                    place=place,
                    name=run.run.name,
                    budget=int(budget),
                    accepted=outcome.accepted_length,
                    speed=outcome.tokens_per_second,
                    alike=alike,
                )
            )
    drawn.sort(key=lambda run: (run.budget, run.name))
    return drawn if len({run.budget for run in drawn}) > 1 else []


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """A plot over budgets."""

    title: str
    left: float  # where it begins
    of: Callable[[SweepRun], float | None]
    runs: Sequence[SweepRun]  # all of them, so that both panels have the same budgets

    @property
    def top(self) -> float:
        """The largest value at its upper edge: 1, 2 or 5 times a power of ten."""
        largest = max((value for run in self.runs if (value := self.of(run)) is not None), default=0.0)
        power = 10.0 ** math.floor(math.log10(max(largest, 1e-6)))
        return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= largest)

    def x(self, budget: int) -> float:
        """By powers of two."""
        first, last = (math.log2(run.budget) for run in (self.runs[0], self.runs[-1]))
        return self.left + LEFT + (math.log2(budget) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)


def sweep_card(runs: Sequence[RunSummary]) -> Markup:
    """The card; nothing where no two of ``runs`` have different budgets."""
    drawn = swept(runs)
    if not drawn:
        return NOTHING
    panels = [_Panel(title="accepted length", left=0.0, of=lambda run: run.accepted, runs=drawn)]
    if any(run.speed is not None for run in drawn):
        panels.append(_Panel(title="tokens per second", left=WIDTH, of=lambda run: run.speed, runs=drawn))
    drawing = markup(
        '<svg class="ss-sweep" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="group" '
        'aria-label="accepted length and speed by budget" style="--ss-least:{width:.0f}px">{panels}</svg>',
        width=WIDTH * len(panels),
        height=HEIGHT,
        panels=joined(map(_panel, panels)),
    )
    words = "Joined: runs that differ in nothing but their budget. A click opens the run."
    return card("sweep", "What budgets came to", "", joined([scrolled(drawing), quiet(words)]))


def _panel(panel: _Panel) -> Markup:
    left, right = panel.left + LEFT, panel.left + WIDTH - RIGHT
    budgets = sorted({run.budget for run in panel.runs})
    lines = [
        markup(
            '<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text x="{at}" y="{low:.1f}" text-anchor="end">{value}</text>',
            left=left,
            right=right,
            y=panel.y(value),
            at=left - 6,
            low=panel.y(value) + 4,
            value=html_text(f"{value:g}"),
        )
        for value in (0.0, panel.top / 2, panel.top)
    ]
    ticks = [
        markup('<text x="{x:.1f}" y="{y}" text-anchor="middle">{b}</text>', x=panel.x(b), y=HEIGHT - BOTTOM + 17, b=b)
        for b in budgets
        if all(panel.x(b) - panel.x(other) > 24 for other in budgets if other < b)
    ]
    titles = markup(
        '<text class="title" x="{left}" y="14">{title}</text><text x="{middle}" y="{low}" text-anchor="middle">'
        "budget, in nodes</text>",
        left=panel.left + 8,
        title=html_text(panel.title),
        middle=(left + right) / 2,
        low=HEIGHT - 6,
    )
    return joined([titles, *lines, *ticks, *_joins(panel), *(_point(panel, run) for run in panel.runs)])


def _joins(panel: _Panel) -> list[Markup]:
    alike: dict[tuple[str, ...], list[SweepRun]] = {}
    for run in panel.runs:
        alike.setdefault(run.alike, []).append(run)
    joins = []
    for a, b in (pair for runs in alike.values() for pair in pairwise(runs)):
        start, end = panel.of(a), panel.of(b)
        if start is not None and end is not None:
            joins.append(
                markup(
                    '<line class="join" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>',
                    x1=panel.x(a.budget),
                    y1=panel.y(start),
                    x2=panel.x(b.budget),
                    y2=panel.y(end),
                )
            )
    return joins


def _point(panel: _Panel, run: SweepRun) -> Markup:
    value = panel.of(run)
    if value is None:
        return NOTHING
    x, y = panel.x(run.budget), panel.y(value)
    is_right = x > panel.left + WIDTH / 2
    name = markup(
        '<text class="name" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{name}</text>',
        x=x - 9 if is_right else x + 9,
        y=y - 7,
        anchor=markup("end") if is_right else markup("start"),
        name=html_text(shorten(run.name, 24)),
    )
    asks = (attribute("data-do", f"run:{run.place}"), attribute("aria-label", run.words))
    return markup(
        '<g class="run" role="button" tabindex="0"{asks}><title>{words}</title>'
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>{name}</g>',
        asks=joined(asks),
        words=html_text(run.words),
        x=x,
        y=y,
        name=name if len(panel.runs) <= MOST_NAMED else NOTHING,
    )
