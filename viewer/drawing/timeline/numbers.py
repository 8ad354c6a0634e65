"""What a pipelined turn comes to: idle share of each stage, overlap factor, mean refill. Pure.

Decoding is what follows the prompt's last forward: from its end on the last stage to the end of the last token that
counted there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from statistics import mean
from typing import NamedTuple

from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.fragments import Fact, Share
from specscope.viewer.drawing.labels.numbers import NOT_RECORDED
from specscope.viewer.drawing.timeline.flow import Piece, TurnFlow


class StageShares(NamedTuple):
    """Shares of the time of decoding."""

    useful: float  # at work on tokens that counted
    wasted: float  # at work on tokens that were dropped
    idle: float


class FlowNumbers(NamedTuple):
    """What a turn comes to."""

    decoding_ns: int | None  # None where no token was verified
    stages: list[StageShares]  # empty where nothing was decoded
    overlap: float | None  # stages at work, in the mean of the time in which any is
    refills: list[int]  # ns from each refutation to the next verified token
    num_dropped: int


@lru_cache(maxsize=8)
def numbers_of(flow: TurnFlow) -> FlowNumbers:
    """The numbers of one turn."""
    last = len(flow.stages) - 1
    counted_items = [item for item in flow.items if item.fate != "dropped" and item.done(last) is not None]
    ends = [item.done(last) or 0 for item in counted_items]
    refills = [
        end - before
        for (before, _), (end, item) in pairwise(zip(ends, counted_items, strict=True))
        if item.fate == "refill"
    ]
    num_dropped = sum(item.fate == "dropped" for item in flow.items)
    if len(ends) < 2:
        return FlowNumbers(None, [], None, refills=refills, num_dropped=num_dropped)
    work = list(_clipped(flow, ends[0], ends[-1]))
    duration = ends[-1] - ends[0]
    shares = [_shares(flow, [piece for piece in work if piece.stage == stage], duration) for stage in range(last + 1)]
    busy = sum(piece.end - piece.start for piece in work)
    any_busy = _union(work)
    return FlowNumbers(
        duration, shares, busy / any_busy if any_busy else None, refills=refills, num_dropped=num_dropped
    )


def _clipped(flow: TurnFlow, start: int, end: int) -> Iterable[Piece]:
    """All work between two times, cut there."""
    for piece in flow.pieces:
        if piece.activity != "hop" and piece.end > start and piece.start < end:
            yield piece._replace(start=max(start, piece.start), end=min(end, piece.end))


def _shares(flow: TurnFlow, work: list[Piece], duration: int) -> StageShares:
    wasted = sum(piece.end - piece.start for piece in work if flow.items[piece.item].fate == "dropped")
    busy = sum(piece.end - piece.start for piece in work)
    return StageShares((busy - wasted) / duration, wasted / duration, max(0.0, 1 - busy / duration))


def _union(work: list[Piece]) -> int:
    """The time in which at least one piece of work, in the order in which they began, was going on."""
    total, until = 0, 0
    for piece in work:
        total += max(0, piece.end - max(until, piece.start))
        until = max(until, piece.end)
    return total


def flow_facts(flow: TurnFlow, numbers: FlowNumbers) -> list[Fact]:
    """The numbers in words."""
    fates = [item.fate for item in flow.items]
    num_held = fates.count("accepted")
    refill = f"{mean(numbers.refills) / 1e6:,.2f} ms" if numbers.refills else "none"
    overlap = NOT_RECORDED if numbers.overlap is None else f"{numbers.overlap:.2f}"
    return [
        Fact("tokens", f"{sum(item.step is not None for item in flow.items):,}", f"{num_held:,} by drafts that held"),
        Fact("overlap factor", overlap, f"stages at work at once, of {len(flow.stages)}"),
        Fact("mean refill", refill, f"from a refuted draft to the next token, {counted(len(numbers.refills), 'time')}"),
        Fact("dropped in flight", f"{numbers.num_dropped:,}", "tokens that were run and did not count"),
    ]


def idle_shares(numbers: FlowNumbers) -> list[Share]:
    """The idle share of each stage while decoding, as bars."""
    return [Share(f"stage {number}", shares.idle, f"{shares.idle:.1%}") for number, shares in enumerate(numbers.stages)]
