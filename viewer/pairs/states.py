"""What is wrong with each step of a run, for the overview strip and for the way from one divergence to the next.

There are up to three sources: the engine's own checks (in the index), the oracle's report, and a comparison with
another run, where what is wrong with a step's partner counts too. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from specscope.schemas.verdict import TIES, Root, Side
from specscope.tracer.compare.diff import Comparison
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


class Partner(NamedTuple):
    """The other run of a comparison."""

    comparison: Comparison
    side: Side  # which of the two the run is whose states are asked for
    turns: list[TurnEntry]  # of the other run
    report: OracleReport | None = None  # of the other run; None where it was not checked


class RunStates:
    """The state of every step of one run.

    Args:
        turns: of the run's index.
        report: what the oracle reports; None where the run was not checked.
        partner: the run that it was compared with, where there is one.
    """

    def __init__(
        self, turns: list[TurnEntry], report: OracleReport | None = None, partner: Partner | None = None
    ) -> None:
        self._turns = {turn.turn: turn for turn in turns}
        self._states: dict[int, dict[int, StepState]] = {}  # by turn and step, where it is not plain
        self._others: dict[int, dict[int, int]] = {}  # the partners' accepted lengths
        for place in _violated(turns, report):
            self._worsen(*place, "violated")
        if partner is not None:
            self._compare(partner)
            for root in filter(of_prompt, partner.comparison.verdict.roots):
                self._mark_prompt(root, partner.side)
            self._mark_partners(partner)
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
        """The previous one."""
        at = bisect_left(self.stops, here)
        return self.stops[at - 1] if at else None

    def _compare(self, partner: Partner) -> None:
        lengths_of = {turn.turn: turn.accepted_lengths for turn in partner.turns}
        for marks in partner.comparison.turns:
            turn, other = _ordered(partner.side, marks.turn_a, marks.turn_b)
            lengths = lengths_of.get(other, [])
            paired = self._others.setdefault(turn, {})
            for pair in marks.pairs:
                here, there = _ordered(partner.side, pair.step_a, pair.step_b)
                if there < len(lengths):
                    paired[here] = lengths[there]
                if pair.state in STATES:
                    self._worsen(turn, here, pair.state)
            size = len(self._turns[turn].steps) if turn in self._turns else 0
            for step in range(size):
                if step not in paired:
                    self._worsen(turn, step, "unpaired" if marks.same_prompt else "inherited")

    def _mark_prompt(self, root: Root, side: Side) -> None:
        """Marks the first step of a turn whose prompt's own forward differs: that belongs to no step."""
        turn = root.place.turn if side == "a" else root.place.turn_b
        self._worsen(turn, 0, "tie" if root.difference.kind in TIES else "root")

    def _mark_partners(self, partner: Partner) -> None:
        """Marks steps that have no mark yet, and whose partner in the other run violates an invariant. Where a
        divergence begins or is inherited, its mark says more."""
        violated = set(_violated(partner.turns, partner.report))
        for marks in partner.comparison.turns if violated else ():
            turn, other = _ordered(partner.side, marks.turn_a, marks.turn_b)
            known = self._states.get(turn, {})
            for pair in marks.pairs:
                here, there = _ordered(partner.side, pair.step_a, pair.step_b)
                if Spot(other, there) in violated and here not in known:
                    self._worsen(turn, here, "violated")

    def _worsen(self, turn: int, step: int, state: StepState) -> None:
        entry = self._turns.get(turn)
        row = self._states.setdefault(turn, {})
        known = entry is not None and step < len(entry.steps)
        if known and STATES.index(state) > STATES.index(row.get(step, "plain")):
            row[step] = state


def _ordered(side: Side, of_a: int, of_b: int) -> tuple[int, int]:
    """What is here, and what is there, for the run that is ``side`` of the comparison."""
    return (of_a, of_b) if side == "a" else (of_b, of_a)


def _violated(turns: list[TurnEntry], report: OracleReport | None) -> Iterator[Spot]:
    """The steps of one run that violate an invariant, as its engine or the oracle reports."""
    for turn in turns:
        if any(turn.failed_invariants):
            for step, failed in enumerate(turn.failed_invariants):
                if failed:
                    yield Spot(turn.turn, step)
    for place in report.by_step if report is not None else ():
        yield Spot(*place)
