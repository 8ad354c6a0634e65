"""What an invariant is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from specscope.schemas import Manifest, Step, TurnStart

Subject = TypeVar("Subject")
Value = TypeVar("Value")


def _always(_: Any) -> bool:
    return True


@dataclass(frozen=True)
class Invariant(Generic[Subject]):
    """One rule, on subjects of one kind."""

    id: str  # stable: phase, dot, rule
    statement: str  # what holds in an honest run
    check: Callable[[Subject], str | None]  # the witness of a violation, or None
    needs: tuple[str, ...] = ()  # "section", "section.field" or "manifest.field"; without them it is skipped
    applies: Callable[[Subject], bool] = _always  # where it says nothing of a subject, it is not even skipped


@dataclass(frozen=True)
class Context:
    """A step and what came before it in its turn."""

    manifest: Manifest
    turn: TurnStart
    previous: Step | None  # None at the turn's first step
    step: Step

    @property
    def rule(self) -> str:
        """The acceptance rule that the step followed; where it does not say, the run's."""
        return self.step.accept.rule if self.step.accept is not None else self.manifest.sampling.rule


def present(value: Value | None) -> Value:
    """``value``, which the invariant's ``needs`` have made sure of."""
    if value is None:
        raise ValueError("a section that the invariant needs is missing")
    return value


def first_mismatch(got: list[int], wanted: list[int], unit: str) -> str | None:
    """The first place where two lists differ, in words; ``unit`` names an entry."""
    for index, (g, w) in enumerate(zip(got, wanted, strict=False)):
        if g != w:
            return f"{unit} {index}: got {g}, wanted {w}"
    if len(got) != len(wanted):
        return f"got {len(got)} entries, wanted {len(wanted)}"
    return None
