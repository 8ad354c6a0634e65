"""What is wrong with each step of a run, for the overview strip and for the way from one divergence to the next.

From three sources, as far as each is there: what the engine itself found (in the index), what the oracle found, and
what became of the step in a comparison with another run. There, what is wrong with its partner counts too. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from specscope.schemas.verdict import TIES, Root, Side
from specscope.tracer.compare.diff import Comparison
from specscope.tracer.compare.marks import TurnMarks
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.oracle.report import OracleReport
from specscope.viewer.drawing.svg.strip import STATES, StepState, StripStep
from specscope.viewer.pairs.pairs import of_prompt

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
        other_report: what the oracle found in the other run; None where it was not asked.
    """

    def __init__(
        self,
        turns: list[TurnEntry],
        report: OracleReport | None = None,
        comparison: Comparison | None = None,
        side: Side = "a",
        others: list[TurnEntry] | None = None,
        other_report: OracleReport | None = None,
    ) -> None:
        self._turns = {turn.turn: turn for turn in turns}
        self._states: dict[int, dict[int, StepState]] = {}  # by turn and step, where it is not plain
        self._others: dict[int, dict[int, int]] = {}  # the partners' accepted lengths
        for place in _violated(turns, report):
            self._worsen(*place, "violated")
        if comparison is not None:
            self._compare(comparison, side, {turn.turn: turn.accepted_lengths for turn in others or []})
            for root in filter(of_prompt, comparison.verdict.roots):
                self._mark_prompt(root, side)
            self._mark_partners(comparison.turns, side, set(_violated(others or [], other_report)))
        self.stops = sorted(
            Spot(turn, step) for turn, row in self._states.items() for step, state in row.items() if state in STOPS
        )

    def of_turn(self, turn: int) -> list[StripStep]:
        """The steps of the turn of that number, in order."""
        entry = self._turns.get(turn)
        states, others = self._states.get(turn, {}), self._others.get(turn, {})
        lengths = entry.accepted_lengths if entry is not None else []
        return [StripStep(length, states.get(at, "plain"), others.get(at)) for at, length in enumerate(lengths)]

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
            lengths, paired = others.get(other, []), self._others.setdefault(turn, {})
            for pair in marks.pairs:
                here, there = (pair.step_a, pair.step_b) if side == "a" else (pair.step_b, pair.step_a)
                if there < len(lengths):
                    paired[here] = lengths[there]
                if pair.state in STATES:
                    self._worsen(turn, here, pair.state)
            size = len(self._turns[turn].steps) if turn in self._turns else 0
            for step in range(size):
                if step not in paired:
                    self._worsen(turn, step, "unpaired" if marks.same_prompt else "inherited")

    def _mark_prompt(self, root: Root, side: Side) -> None:
        """Marks the first step of a turn whose prompt's own forward differs: that stands at no step."""
        turn = root.place.turn if side == "a" else root.place.turn_b
        self._worsen(turn, 0, "tie" if root.difference.kind in TIES else "root")

    def _mark_partners(self, turns: list[TurnMarks], side: Side, violated: set[Spot]) -> None:
        """Marks steps of which nothing else is said, and whose partner in the other run violates an invariant. Where a
        divergence begins or is inherited, its own mark says more."""
        for marks in turns if violated else ():
            turn, other = (marks.turn_a, marks.turn_b) if side == "a" else (marks.turn_b, marks.turn_a)
            known = self._states.get(turn, {})
            for pair in marks.pairs:
                here, there = (pair.step_a, pair.step_b) if side == "a" else (pair.step_b, pair.step_a)
                if Spot(other, there) in violated and here not in known:
                    self._worsen(turn, here, "violated")

    def _worsen(self, turn: int, step: int, state: StepState) -> None:
        entry, row = self._turns.get(turn), self._states.setdefault(turn, {})
        known = entry is not None and step < len(entry.steps)
        if known and STATES.index(state) > STATES.index(row.get(step, "plain")):
            row[step] = state


def _violated(turns: list[TurnEntry], report: OracleReport | None) -> Iterator[Spot]:
    """The steps of one run that violate an invariant, by its engine and by the oracle."""
    for turn in turns:
        if any(turn.failed_invariants):
            for step, failed in enumerate(turn.failed_invariants):
                if failed:
                    yield Spot(turn.turn, step)
    for place in report.by_step if report is not None else ():
        yield Spot(*place)
