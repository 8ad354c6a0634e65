"""How long requests waited for a row, and what the rows put out together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from specscope.schemas import TurnEnd, TurnStart
from specscope.tracer.tuning.intervals import value_at


class Stay(NamedTuple):
    """A turn in its row; a few numbers, because a run may have many."""

    joined_at: int
    waited_steps: int | None  # None in a further turn of its request
    waited_ns: int | None
    could_wait: bool
    end: StayEnd | None  # None where the run was cut off


class StayEnd(NamedTuple):
    """What a turn came to."""

    num_steps: int
    num_tokens: int
    is_cancelled: bool


def stay_of(start: TurnStart, end: TurnEnd | None, rows: int) -> Stay | None:
    """The stay of a turn in one of at most ``rows``; None where the trace does not say when it joined."""
    if start.joined_at is None:
        return None
    ended = None if end is None else StayEnd(end.num_steps, end.output_length, end.reason == "cancelled")
    return Stay(
        joined_at=start.joined_at,
        waited_steps=start.waited_steps,
        waited_ns=start.waited_ns,
        could_wait=start.could_wait(rows),
        end=ended,
    )


class Waits(NamedTuple):
    """How long requests waited, in one unit."""

    mean: float
    p50: float
    p95: float


class Served(NamedTuple):
    """The requests of a run that took rows. One that was cancelled while it waited has no turn, and is not counted."""

    num_requests: int
    num_cancelled: int  # turns that ended so, which is at most one of a request
    waited_steps: Waits  # in steps that the rows had taken together
    waited_ms: Waits | None  # None where requests did not arrive by seconds
    #: That all rows put out together, over the steps in which any row was taken; None: there was no step.
    tokens_per_step: float | None


def served_requests(stays: Sequence[Stay]) -> Served | None:
    """What became of the requests of a run; None where nobody could wait.

    Args:
        stays: of all its turns, in any order: those left out would have taken rows as well.
    """
    waited = [stay.waited_steps for stay in stays if stay.waited_steps is not None]
    if not waited or not any(stay.could_wait for stay in stays):
        return None
    in_ms = [stay.waited_ns / 1e6 for stay in stays if stay.waited_ns is not None]
    return Served(
        num_requests=len(waited),
        num_cancelled=sum(stay.end is not None and stay.end.is_cancelled for stay in stays),
        waited_steps=_waits(waited),
        waited_ms=_waits(in_ms) if in_ms else None,
        tokens_per_step=_tokens_per_step(stays),
    )


def _waits(values: Sequence[float]) -> Waits:
    row = sorted(values)
    return Waits(statistics.fmean(row), statistics.median(row), value_at(row, 0.95))


def _tokens_per_step(stays: Sequence[Stay]) -> float | None:
    """Tokens of all turns that ended, the first one of each included, over the steps that are the time of any."""
    num_steps = num_tokens = taken_until = 0
    for joined_at, end in sorted((stay.joined_at, stay.end) for stay in stays if stay.end is not None):
        left_at = joined_at + end.num_steps
        num_steps += max(0, left_at - max(joined_at, taken_until))
        taken_until = max(taken_until, left_at)
        num_tokens += end.num_tokens
    return num_tokens / num_steps if num_steps > 0 else None
