"""What is looked at of a chart over steps, positions or turns, and the mean that smooths it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from specscope.viewer.metrics.numbers import (
    MOVING,
    Floats,
    PlacedLengths,
    RunMetrics,
    course_of,
    positions_of,
)

#: Fewer places than this need no zoom; and beyond the largest a browser cannot count.
FEWEST, LARGEST = 12, 1 << 53


class Stretch(NamedTuple):
    """What is looked at of an axis, both ends inclusive."""

    first: int
    last: int


class Sight(NamedTuple):
    """How a chart is looked at."""

    stretch: Stretch | None = None  # None: the whole axis
    mean_of: int | None = None  # in a moving mean; None: none is drawn


def moving_mean(totals: Any, sizes: Any, mean_of: int | None) -> Floats | None:
    """The mean of the last ``mean_of`` entries up to each: their totals over their sizes. None where none is wanted.

    Args:
        totals: (N,) what is averaged, summed over each entry.
        sizes: (N,) how much each entry counts; positive.
        mean_of: entries in the mean; at the beginning there are fewer.
    """
    if mean_of is None:
        return None
    sums = [np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))]) for values in (totals, sizes)]
    ends = np.arange(1, len(sums[0]))
    starts = np.maximum(0, ends - mean_of)
    mean: Floats = (sums[0][ends] - sums[0][starts]) / (sums[1][ends] - sums[1][starts])
    return mean


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis that can be looked at in parts, and smoothed."""

    what: str  # is on it
    smoothed: str  # that a moving mean is of
    means: tuple[int, ...]  # sizes of it that can be chosen
    mean_of: int | None  # at first
    extent: Callable[[RunMetrics], Stretch | None]  # None where nothing was recorded
    seen: Callable[[RunMetrics, Sight], RunMetrics]  # the run with only what is looked at of it

    def whole(self, runs: Sequence[RunMetrics]) -> Stretch | None:
        """Of all runs together; None where it is too short, or too long, to be looked at in parts."""
        known = [extent for run in runs if (extent := self.extent(run)) is not None]
        if not known:
            return None
        whole = Stretch(min(stretch.first for stretch in known), max(stretch.last for stretch in known))
        return whole if FEWEST <= whole.last - whole.first < LARGEST and abs(whole.last) < LARGEST else None


def _steps(run: RunMetrics) -> Stretch | None:
    return None if run.recorded is None else Stretch(0, len(run.recorded.lengths) - 1)


def _seen_steps(run: RunMetrics, sight: Sight) -> RunMetrics:
    if run.recorded is None:
        return run
    steps = range(len(run.recorded.lengths))
    if sight.stretch is not None:
        steps = steps[max(0, sight.stretch.first) : sight.stretch.last + 1]
    return replace(run, course=course_of(run.recorded, steps, sight.mean_of) if steps else None)


def _places(run: RunMetrics) -> Stretch | None:
    return None if run.placed is None else Stretch(int(run.placed.places.min()), int(run.placed.places.max()))


def _seen_places(run: RunMetrics, sight: Sight) -> RunMetrics:
    placed, positions = run.placed, run.positions
    if placed is not None and sight.stretch is not None:
        inside = (placed.places >= sight.stretch.first) & (placed.places <= sight.stretch.last)
        part = PlacedLengths(placed.places[inside], placed.lengths[inside])
        positions = positions_of(part) if inside.any() else None
    return replace(run, positions=positions, mean_of=sight.mean_of, is_part=sight.stretch is not None)


def _turns(run: RunMetrics) -> Stretch | None:
    numbers = [turn.turn for turn in run.speed.turns]
    return Stretch(min(numbers), max(numbers)) if numbers else None


def _seen_turns(run: RunMetrics, sight: Sight) -> RunMetrics:
    turns = run.speed.turns
    if sight.stretch is not None:
        turns = [turn for turn in turns if sight.stretch.first <= turn.turn <= sight.stretch.last]
    speed = replace(run.speed, turns=turns)
    return replace(run, speed=speed, mean_of=sight.mean_of, is_part=sight.stretch is not None)


STEPS = Axis(
    what="steps", smoothed="steps", means=(5, MOVING, 100, 400), mean_of=MOVING, extent=_steps, seen=_seen_steps
)
POSITIONS = Axis(
    what="committed lengths", smoothed="ranges", means=(3, 5, 10), mean_of=None, extent=_places, seen=_seen_places
)
TURNS = Axis(what="turns", smoothed="turns", means=(3, 5, 10, 25), mean_of=None, extent=_turns, seen=_seen_turns)
