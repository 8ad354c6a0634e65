"""How long requests waited for a row, and what the rows put out together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from specscope.schemas import TurnEnd, TurnStart
from specscope.tracer.tuning.intervals import value_at


class Stay(NamedTuple):
    """A turn in its row."""

    start: TurnStart
    end: TurnEnd | None  # None where the run was cut off


class Waits(NamedTuple):
    """How long requests waited, in one unit."""

    mean: float
    p50: float
    p95: float


class Served(NamedTuple):
    """The requests of a run that took rows. One that was cancelled while it waited has no turn, and is not counted."""

    num_requests: int
    num_cancelled: int
    waited_steps: Waits  # in steps that the rows had taken together
    waited_ms: Waits | None  # None where requests did not arrive by seconds
    tokens_per_step: float | None  # that all rows put out together, over the steps in which any row was taken


def served_requests(stays: Iterable[Stay], rows: int) -> Served | None:
    """What became of the requests of a run of ``rows`` at most; None where that was not recorded, or nobody
    could wait."""
    known = [stay for stay in stays if stay.start.joined_at is not None]
    firsts = [stay.start for stay in known if stay.start.waited_steps is not None]
    if not firsts or not any(stay.start.could_wait(rows) for stay in known):
        return None
    in_ms = [start.waited_ns / 1e6 for start in firsts if start.waited_ns is not None]
    return Served(
        num_requests=len(firsts),
        num_cancelled=sum(stay.end is not None and stay.end.reason == "cancelled" for stay in known),
        waited_steps=_waits([start.waited_steps or 0 for start in firsts]),
        waited_ms=_waits(in_ms) if in_ms else None,
        tokens_per_step=_tokens_per_step(known),
    )


def _waits(values: Sequence[float]) -> Waits:
    row = sorted(values)
    return Waits(statistics.fmean(row), statistics.median(row), value_at(row, 0.95))


def _tokens_per_step(stays: Sequence[Stay]) -> float | None:
    """Tokens of all turns that ended, the first one of each included, over the steps that are the time of any."""
    ended = sorted(((start.joined_at or 0, end) for start, end in stays if end is not None), key=lambda stay: stay[0])
    num_steps = taken_until = 0
    for joined_at, end in ended:
        left_at = joined_at + end.num_steps
        num_steps += max(0, left_at - max(joined_at, taken_until))
        taken_until = max(taken_until, left_at)
    return sum(end.output_length for _, end in ended) / num_steps if num_steps > 0 else None
