"""What the oracle says of one trace: violations, and how often each invariant held."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from specscope.schemas import Failure, Manifest

MOST_KEPT = 10_000  # violated steps that are remembered one by one; the later ones are only counted
#: Where lists do not fit together, a step cannot be compared; those are always remembered.
MISSHAPEN = ("tensors.sizes", "verify.sizes")


class RecordPlace(NamedTuple):
    """Where a record is in its trace, as far as it has such a place."""

    turn: int | None = None
    step: int | None = None
    line: int | None = None


class Violation(NamedTuple):
    """One violated invariant at one place."""

    invariant: str
    witness: str
    turn: int | None = None
    step: int | None = None
    line: int | None = None


@dataclass(kw_only=True)
class Tally:
    """How often one invariant passed, failed and was skipped, and its first violation."""

    statement: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    why_skipped: str | None = None  # the first time
    first: Violation | None = None


@dataclass(kw_only=True)
class OracleReport:
    """What the oracle says of one trace."""

    path: Path
    manifest: Manifest
    invariants: dict[str, Tally]
    num_turns: int = 0
    num_steps: int = 0
    truncated: bool = False
    torn_bytes: int = 0
    end_reason: str | None = None
    failures: list[Failure] = field(default_factory=list)
    by_step: dict[tuple[int, int], list[Violation]] = field(default_factory=dict)  # by turn and step; see MOST_KEPT
    by_turn: dict[int, list[Violation]] = field(default_factory=dict)  # of turns as a whole
    unknown: Counter[tuple[str, str]] = field(default_factory=Counter)  # (record's kind, dotted name) -> records
    required: tuple[str, ...] = ()  # sections, or section.field, that the caller wants in every step
    absent: Counter[str] = field(default_factory=Counter)  # of those, how many steps do not have them
    forgetful: bool = False  # whether a violated step is missing there

    @property
    def num_violations(self) -> int:
        """Violations over all invariants."""
        return sum(tally.failed for tally in self.invariants.values())

    @property
    def unmet(self) -> list[str]:
        """The requirements that a step does not meet; all of them where there is no step."""
        return [name for name in self.required if self.absent[name] or not self.num_steps]

    def judge(self, invariant: str, witness: str | None, at: RecordPlace) -> None:
        """Adds one pass, where there is no witness, or one violation."""
        if witness:
            self.fail(Violation(invariant, witness, **at._asdict()))
        else:
            self.invariants[invariant].passed += 1

    def skip(self, invariant: str, why: str) -> None:
        """Adds one record that could not be judged."""
        tally = self.invariants[invariant]
        tally.skipped += 1
        tally.why_skipped = tally.why_skipped or why

    def fail(self, violation: Violation) -> None:
        """Adds one violation."""
        tally = self.invariants[violation.invariant]
        tally.failed += 1
        tally.first = tally.first or violation
        if violation.turn is None:
            return
        if violation.step is None:
            if len(self.by_turn) < MOST_KEPT:
                self.by_turn.setdefault(violation.turn, []).append(violation)
            return
        place = (violation.turn, violation.step)
        if place in self.by_step or len(self.by_step) < MOST_KEPT or violation.invariant in MISSHAPEN:
            self.by_step.setdefault(place, []).append(violation)
        else:
            self.forgetful = True
