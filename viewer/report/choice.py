"""Which steps of a run the report draws. Pure; knows the index and what is wrong with each step, no records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from specscope.tracer.errors import UsageError
from specscope.tracer.files.index import TurnEntry
from specscope.viewer.pairs.states import Spot

AROUND = 2  # steps drawn before and after one in focus


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asked for."""

    turn: int | None = None  # its number; None: any
    step: int | None = None  # this one, and those around it
    every_step: bool = False
    most_steps: int = 100
    most_roots: int = 3  # violated steps, or roots of a pair


class Choice(NamedTuple):
    """The steps to draw."""

    steps: dict[int, list[int]]  # by turn, in order
    focus: frozenset[Spot]  # what the others are there for
    words: str  # what was chosen, and what was left out


def turns_by_number(turns: list[TurnEntry]) -> dict[int, TurnEntry]:
    """Every turn by its number; of two with the same number, the first."""
    return {turn.turn: turn for turn in reversed(turns)}


def choose_steps(turns: list[TurnEntry], violated: list[Spot], wanted: Wanted) -> Choice:
    """The steps asked for, else the first violated ones and those around them, else the first turn's.

    Raises:
        UsageError: where the turn or the step asked for does not exist.
    """
    known = turns_by_number(turns)
    if wanted.turn is not None and wanted.turn not in known:
        raise UsageError(f"got turn {wanted.turn}, wanted one of the trace: {_ranges(sorted(known))}")
    numbers = [turn.turn for turn in turns if wanted.turn in (None, turn.turn) and known[turn.turn] is turn]
    sizes = {number: len(known[number].steps) for number in numbers}
    violated = [spot for spot in violated if spot.turn in sizes]
    if wanted.step is not None:
        return _single(sizes, wanted.step)
    if violated and not wanted.every_step:
        return _cut(sizes, _around(violated[: wanted.most_roots], sizes), violated, wanted)
    some = numbers if wanted.every_step or wanted.turn is not None else numbers[:1]
    return _cut(sizes, [Spot(number, step) for number in some for step in range(sizes[number])], violated, wanted)


def _single(sizes: dict[int, int], step: int) -> Choice:
    turn, size = next(iter(sizes.items()), (0, 0))
    if not 0 <= step < size:
        raise UsageError(f"got step {step}, wanted one of turn {turn}: {_ranges(list(range(size)))}")
    spot = Spot(turn, step)
    words = f"Step {step} of turn {turn}, and up to {AROUND} steps before and after it."
    return Choice(_by_turn(_around([spot], sizes)), frozenset([spot]), words)


def _around(focus: list[Spot], sizes: dict[int, int]) -> list[Spot]:
    """``focus`` and its neighbours in their turns, each once, in order."""
    spots = {
        Spot(turn, near)
        for turn, step in focus
        for near in range(max(0, step - AROUND), min(sizes[turn], step + AROUND + 1))
    }
    order = {number: at for at, number in enumerate(sizes)}
    return sorted(spots, key=lambda spot: (order[spot.turn], spot.step))


def _cut(sizes: dict[int, int], spots: list[Spot], violated: list[Spot], wanted: Wanted) -> Choice:
    kept = spots[: wanted.most_steps]
    focus = frozenset(violated[: wanted.most_roots]) & frozenset(kept)
    total = sum(sizes.values())
    words = f"{len(kept)} of {total} steps are drawn"
    if focus and not wanted.every_step:
        words += f": the first {len(focus)} of {len(violated)} violated steps, and up to {AROUND} before and after each"
    words += f"; --max-steps {wanted.most_steps} is the limit." if len(kept) < len(spots) else "."
    return Choice(_by_turn(kept), focus, words)


def _by_turn(spots: list[Spot]) -> dict[int, list[int]]:
    steps: dict[int, list[int]] = {}
    for turn, step in spots:
        steps.setdefault(turn, []).append(step)
    return steps


def _ranges(numbers: list[int]) -> str:
    """Numbers in words, abridged where they are many."""
    if not numbers:
        return "there are none"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}..{numbers[-1]}"
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")
