"""Root or inherited: files the differences of one step after another.

A root has equal inputs and unequal outputs. What follows from it is inherited: counted under it, and folded, until the
two runs agree on a step again. While a root is open, another one is seen where a step breaks an invariant itself,
at another place: those invariants look at only one step, so that nothing before it can be the cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from specscope.schemas.phases import COMPARED_PHASES
from specscope.schemas.verdict import TIES, Blame, Difference, Place, Root, Wrong
from specscope.tracer.oracle.invariants.registry import looks_across_steps, phase_of

#: What became of a pair of steps. ``root`` has its own cause, ``tie`` is a root that a tie explains, ``inherited``
#: follows from a root before it, ``unjudged`` could not be compared.
PairState = Literal["equal", "tie", "root", "inherited", "unjudged"]


class Filed(NamedTuple):
    """What became of a pair of steps, and which root it is or follows from."""

    state: PairState
    root: int | None = None  # index into the roots


@dataclass(kw_only=True)
class Findings:
    """The roots so far, and what is open."""

    steps_stand_alone: bool = False  # a replay: every step began from equal state
    roots: list[Root] = field(default_factory=list)
    num_inherited: int = 0
    _open: _Open | None = None
    _drift: _Drifting | None = None

    @property
    def real_is_open(self) -> bool:
        """Whether consequences of a root that is not a tie are still seen."""
        return self._open is not None and not self._open.is_tie

    @property
    def is_open(self) -> bool:
        """Whether consequences of a root are still seen."""
        return self._open is not None

    def close(self) -> None:
        """The two runs are at one again, or stand before something new."""
        self._open = None

    def begin_drift(self, root: Root, explains: Callable[[Difference], bool]) -> None:
        """From here on every number drifts further than noise; ``explains`` tells which differences follow from it."""
        self.roots.append(root)
        self._drift = _Drifting(len(self.roots) - 1, explains)

    def inherit(self) -> Filed:
        """One more step that follows from what is open, or else from the drift of all numbers."""
        self.num_inherited += 1
        cause = self._open or self._drift
        if cause is None:
            return Filed("inherited")
        root = self.roots[cause.number]
        self.roots[cause.number] = root.model_copy(update={"inherited": root.inherited + 1})
        return Filed("inherited", cause.number)

    def file(self, place: Place, differences: list[Difference], blame: list[Blame]) -> Filed:
        """Files one step's differences, in the order of the phases, and who violates what there."""
        num_found = len(differences)
        if self._drift is not None:
            differences = [difference for difference in differences if not self._drift.explains(difference)]
        follows = len(differences) < num_found
        differences = with_violation(differences, blame)
        if follows and not any(difference.inputs_equal for difference in differences):
            return self.inherit()
        if not differences:
            self.close()
            return Filed("equal")
        first = origin_of(differences) or differences[0]
        root = Root(
            place=place, difference=first, also=len(differences) - 1, inherited=0, blame=blame, wrong=who(blame)
        )
        state: PairState = "tie" if first.kind in TIES else "root"
        if self.steps_stand_alone:
            return Filed(state, self._file_alone(root))
        if self._open is not None and not self._open.is_overtaken(root):
            return self.inherit()
        self.roots.append(root)
        self._open = _Open(len(self.roots) - 1, first.kind in TIES, {_spot(first)}, _intrinsic(blame))
        return Filed(state, self._open.number)

    def file_prefill(self, place: Place, differing: Difference, blame: list[Blame]) -> None:
        """Files what differs before a turn's first step. Where it follows from a root it is not counted: it is no
        step."""
        roots, num_inherited = list(self.roots), self.num_inherited
        if self.file(place, [differing], blame).state == "inherited":
            self.roots, self.num_inherited = roots, num_inherited

    def _file_alone(self, root: Root) -> int:
        """Steps that were run from equal state stand each alone; the same place again is counted and not repeated."""
        for number, other in enumerate(self.roots):
            if _spot(other.difference) == _spot(root.difference) and other.difference.kind == root.difference.kind:
                self.roots[number] = other.model_copy(update={"recurs": other.recurs + 1})
                return number
        self.roots.append(root)
        return len(self.roots) - 1


class _Drifting(NamedTuple):
    """A root that no single value is: what follows from it may show at any later step."""

    number: int  # of the root
    explains: Callable[[Difference], bool]


@dataclass
class _Open:
    """A root whose consequences are still seen."""

    number: int  # of the root
    is_tie: bool
    spots: set[str]
    broken: set[str]  # invariants of single steps that were violated since

    def is_overtaken(self, root: Root) -> bool:
        """Whether ``root`` cannot follow from the open one."""
        first = root.difference
        if self.is_tie:
            return first.inputs_equal and first.kind not in TIES
        broken = _intrinsic(root.blame)
        is_new = first.inputs_equal and first.kind == "structural" and _spot(first) not in self.spots
        is_overtaken = is_new and bool(broken - self.broken)
        self.spots.add(_spot(first))
        self.broken |= broken
        return is_overtaken


def origin_of(differences: list[Difference]) -> Difference | None:
    """The difference that the step's others follow from, real before tie; None where none of them has equal inputs."""
    origins = [difference for difference in differences if difference.inputs_equal]
    return next((difference for difference in origins if difference.kind not in TIES), next(iter(origins), None))


def _spot(difference: Difference) -> str:
    """The field without its numbers: the same bug shows at other levels and slots."""
    return difference.phase + "." + re.sub(r"\[\d+\]", "", difference.field)


def who(blame: list[Blame]) -> Wrong:
    """The side that violates an invariant."""
    sides = {violation.side for violation in blame}
    if len(sides) == 2:
        return "both"
    return "neither" if not sides else "baseline" if sides == {"a"} else "candidate"


def with_violation(differences: list[Difference], blame: list[Blame]) -> list[Difference]:
    """``differences`` with what only one side violates, where none with equal inputs is at that phase or before it: a
    broken invariant needs no second opinion."""
    sides = {side: {b.invariant: b.witness for b in blame if b.side == side} for side in ("a", "b")}
    one_sided = [b for b in blame if b.invariant not in sides["b" if b.side == "a" else "a"]]
    if not one_sided:
        return differences
    first = min(one_sided, key=lambda b: COMPARED_PHASES.index(phase_of(b.invariant)))
    phase = phase_of(first.invariant)
    explained = [d for d in differences if d.inputs_equal and d.kind not in TIES]
    if any(COMPARED_PHASES.index(d.phase) <= COMPARED_PHASES.index(phase) for d in explained):
        return differences
    holds = "holds"
    breach = Difference(
        phase=phase,
        field=first.invariant.partition(".")[2],
        a=first.witness if first.side == "a" else holds,
        b=first.witness if first.side == "b" else holds,
        kind="structural",
        inputs_equal=True,
    )
    at = next(
        (n for n, d in enumerate(differences) if COMPARED_PHASES.index(d.phase) > COMPARED_PHASES.index(phase)),
        len(differences),
    )
    return [*differences[:at], breach, *differences[at:]]


def _intrinsic(blame: list[Blame]) -> set[str]:
    """Violated invariants that look at only one step, side and all."""
    return {
        f"{b.side} {b.invariant}"
        for b in blame
        if not looks_across_steps(b.invariant) and not b.invariant.startswith("draft.")
    }
