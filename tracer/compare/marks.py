"""What became of every pair of aligned steps on the way to a verdict."""

from __future__ import annotations

from typing import NamedTuple

from specscope.tracer.compare.roots import PairState


class PairMark(NamedTuple):
    """What became of two aligned steps."""

    step_a: int
    step_b: int
    position: int  # committed length at which both begin
    state: PairState
    root: int | None  # index, among the verdict's roots, of the one that it is or follows from
    same_context: bool  # off where the tokens before the two differ, so that nothing of them can be compared


class TurnMarks(NamedTuple):
    """The aligned steps of one turn, in order. Steps of either side that stand in none have no partner."""

    turn_a: int
    turn_b: int
    pairs: list[PairMark]
    same_prompt: bool = True  # off where an earlier turn's outputs differ: then no steps of this one are compared
