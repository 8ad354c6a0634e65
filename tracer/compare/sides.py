"""The two runs of a comparison, and what the oracle says of each."""

from __future__ import annotations

from typing import NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import Blame, Side
from specscope.tracer.compare.align import TurnPair
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.invariants.rows import ROWS
from specscope.tracer.oracle.report import MISSHAPEN, OracleReport, Violation

OF_ROWS = frozenset(invariant.id for invariant in ROWS)
#: Judged as a turn begins: they are of its prefill, and not of what it came to.
OF_PREFILLS = OF_ROWS | {"turn.prefill"}


class Sides(NamedTuple):
    """The two runs, and what the oracle says of each."""

    a: TraceReader
    b: TraceReader
    report_a: OracleReport
    report_b: OracleReport

    def is_misshapen(self, step_a: Step, step_b: Step) -> bool:
        """Whether the lists of one of two aligned steps do not fit together."""
        return any(violated.invariant in MISSHAPEN for violated in self.blame(step_a, step_b))

    def is_broken(self, step_a: Step, step_b: Step) -> bool:
        """Whether one of two aligned steps violates an invariant."""
        return bool(self.blame(step_a, step_b))

    def forgotten(self) -> list[str]:
        """Whose violations were so many that the later ones were only counted."""
        sides = (("baseline", self.report_a), ("candidate", self.report_b))
        return [
            f"the {name} violates invariants in more than {len(report.by_step)} steps: after them nobody is blamed"
            for name, report in sides
            if report.forgetful
        ]

    def blame(self, step_a: Step, step_b: Step) -> list[Blame]:
        """What the oracle says is violated at two aligned steps."""
        return [
            *_blames("a", self.report_a, step_a),
            *_blames("b", self.report_b, step_b),
        ]

    def blame_turn(self, turns: TurnPair, *, prefill: bool) -> list[Blame]:
        """What the oracle says is violated of two turns as a whole: of their prefills, or of all after them."""
        sides: tuple[tuple[Side, OracleReport, int], ...] = (
            ("a", self.report_a, turns.a.turn),
            ("b", self.report_b, turns.b.turn),
        )
        return [
            blame_of(side, violation)
            for side, report, turn in sides
            for violation in report.by_turn.get(turn, [])
            if (violation.invariant in OF_PREFILLS) is prefill
        ]


def _blames(side: Side, report: OracleReport, step: Step) -> list[Blame]:
    """What a step violates; a turn's first step also what its row kept of others, which is seen there first."""
    violations = report.by_step.get((step.turn, step.step), [])
    if step.step == 0:
        violations = [*(v for v in report.by_turn.get(step.turn, []) if v.invariant in OF_ROWS), *violations]
    return [blame_of(side, violation) for violation in violations]


def first_violations(side: Side, report: OracleReport) -> list[Blame]:
    """The first violation of each invariant, over the whole file."""
    firsts = [tally.first for tally in report.invariants.values() if tally.first is not None]
    return [blame_of(side, violation) for violation in firsts]


def blame_of(side: Side, violation: Violation) -> Blame:
    """A violation as the verdict names it."""
    return Blame(side=side, invariant=violation.invariant, witness=violation.witness)
