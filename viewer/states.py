"""What is wrong with each step of a run, for the overview strip and for the way from one divergence to the next.

From three sources, as far as each is there: what the engine itself found (in the index), what the oracle found, and
what became of the step in a comparison with another run. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from specscope.schemas.verdict import Side
from specscope.tracer.compare.diff import Comparison
from specscope.tracer.index import TurnEntry
from specscope.tracer.oracle import OracleReport
from specscope.viewer.drawing.strip_svg import STATES, StepState, StripStep

#: Where the keys for the next and the previous divergence stop; not at what merely follows from one.
STOPS: tuple[StepState, ...] = ("tie", "root", "violated")


class Spot(NamedTuple):
    """One step of a run."""

    turn: int  # its number
    step: int


class RunStates:
    """The state of every step of one run.

    Args:
        turns: of the run's index.
        report: what the oracle found; None where it was not asked.
        comparison: with another run, where there is one.
        side: which of the two this run is.
        others: the turns of the other run.
    """

    def __init__(
        self,
        turns: list[TurnEntry],
        report: OracleReport | None = None,
        comparison: Comparison | None = None,
        side: Side = "a",
        others: list[TurnEntry] | None = None,
    ) -> None:
        self._turns = {turn.turn: _plain(turn) for turn in turns}
        for turn in turns:
            for step, failed in enumerate(turn.failed_invariants):
                if failed:
                    self._worsen(turn.turn, step, "violated")
        for place in report.by_step if report is not None else ():
            self._worsen(*place, "violated")
        if comparison is not None:
            self._compare(comparison, side, {turn.turn: turn.accepted_lengths for turn in others or []})
        self.stops = [
            Spot(turn, at) for turn, row in self._turns.items() for at, step in enumerate(row) if step.state in STOPS
        ]
        self.stops.sort()

    def of_turn(self, turn: int) -> list[StripStep]:
        """The steps of the turn of that number, in order."""
        return self._turns.get(turn, [])

    def after(self, here: Spot) -> Spot | None:
        """The next step that is violated, or where a divergence begins."""
        at = bisect_right(self.stops, here)
        return self.stops[at] if at < len(self.stops) else None

    def before(self, here: Spot) -> Spot | None:
        """The one before."""
        at = bisect_left(self.stops, here)
        return self.stops[at - 1] if at else None

    def _compare(self, comparison: Comparison, side: Side, others: dict[int, list[int]]) -> None:
        for marks in comparison.turns:
            turn, other = (marks.turn_a, marks.turn_b) if side == "a" else (marks.turn_b, marks.turn_a)
            row, lengths = self._turns.get(turn, []), others.get(other, [])
            paired = set()
            for pair in marks.pairs:
                here, there = (pair.step_a, pair.step_b) if side == "a" else (pair.step_b, pair.step_a)
                paired.add(here)
                if here < len(row) and there < len(lengths):
                    row[here] = StripStep(row[here].accepted, row[here].state, lengths[there])
                if pair.state in STATES:
                    self._worsen(turn, here, pair.state)
            for step in range(len(row)):
                if step not in paired:
                    self._worsen(turn, step, "unpaired" if marks.same_prompt else "inherited")

    def _worsen(self, turn: int, step: int, state: StepState) -> None:
        row = self._turns.get(turn, [])
        if step < len(row) and STATES.index(state) > STATES.index(row[step].state):
            row[step] = StripStep(row[step].accepted, state, row[step].other)


def _plain(turn: TurnEntry) -> list[StripStep]:
    return [StripStep(length) for length in turn.accepted_lengths]
