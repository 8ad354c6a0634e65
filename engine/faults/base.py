"""What a deliberate fault is: where it goes in, and what the verdict must then say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from specscope.engine.assemble import ModelChoice, Models
from specscope.engine.decoding import Phases
from specscope.schemas.verdict import Phase


@dataclass(frozen=True)
class FaultTarget:
    """What a fault may change: the loop's phases, and the models, which are its own to spoil."""

    models: Models
    phases: Phases


@dataclass(frozen=True)
class Expectation:
    """What the verdict on an honest baseline and a candidate with the fault in must say.

    ``outcome``: ``root``, a first root at one of ``places``; ``violation``, no decision differs, but the oracle finds
    the candidate wrong; ``incomparable``, the manifests tell; ``refused``, loading or decoding ends with an error.
    """

    outcome: Literal["root", "violation", "incomparable", "refused"] = "root"
    places: tuple[tuple[Phase, str], ...] = ()  # phase and the beginning of the field's name, each that is right
    invariant: str | None = None  # that the candidate alone violates; None: no record tells, and no side may be blamed
    says: str | None = None  # refused, incomparable: what the message or the named field must contain


def _unchanged(target: FaultTarget) -> FaultTarget:
    return target


@dataclass(frozen=True)
class Fault:
    """One kind of bug, in one of its forms."""

    id: str  # F15, or F15.sibling where the catalogue's entry has several forms
    says: str
    expect: Expectation
    scenario: str = "greedy"  # the selftest's, by name, in which it shows
    inject: Callable[[FaultTarget], FaultTarget] = _unchanged
    #: Instead of ``inject``, for what goes wrong at loading: the choice with a damaged copy of a checkpoint, which is
    #: written to the folder given.
    damage: Callable[[ModelChoice, Path], ModelChoice] | None = None

    @property
    def entry(self) -> str:
        """The catalogue's entry, such as F15."""
        return self.id.partition(".")[0]


def inject(target: FaultTarget, fault: Fault) -> FaultTarget:
    """``target`` with the fault in. The loop then goes on at a violated invariant, so that the trace shows it."""
    return fault.inject(target)
