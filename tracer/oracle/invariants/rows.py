"""Invariants of rows that one request takes after another: nothing of the one before may stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from specscope.schemas import Step, TurnEnd, TurnStart
from specscope.tracer.oracle.invariants.base import Invariant, first_mismatch, present

MOST_KEPT = 10_000  # states of generators, and rows, that are remembered


@dataclass(frozen=True, kw_only=True)
class RowTaken:
    """A row of the batch, as a turn begins in it."""

    start: TurnStart
    holder: int | None  # the turn that has the row; None: nobody has
    left_ids: list[int] | None  # tokens of the turn that left the row last; None: not known
    left_states: Mapping[str, int]  # of the generators that were left, the turn of each

    @property
    def row(self) -> int:
        """Its number."""
        return self.start.row or 0


@dataclass(kw_only=True)
class RowLedger:
    """Who has which row, and what was left in it. Its memory does not grow with the run except for ``MOST_KEPT``.

    Args:
        remembers_tokens: whether rows are what they are numbered as; not in a replay, which runs conversations apart.
    """

    remembers_tokens: bool
    _held: dict[int, TurnStart] = field(default_factory=dict)  # by open turn
    _row_of: dict[int, int] = field(default_factory=dict)  # likewise
    _left: dict[int, list[int]] = field(default_factory=dict)  # by row
    _states: dict[str, int] = field(default_factory=dict)

    def take(self, start: TurnStart) -> RowTaken:
        """A turn begins."""
        row = start.row or 0
        taken = RowTaken(
            start=start,
            holder=next((turn for turn, held in self._row_of.items() if held == row), None),
            left_ids=self._left.get(row),
            left_states=dict(self._states) if start.generator_digest in self._states else {},
        )
        self._held[start.turn], self._row_of[start.turn] = start, row
        return taken

    def step(self, step: Step) -> None:
        """A turn takes a step, in another row where it was moved."""
        if step.row is not None and step.turn in self._row_of:
            self._row_of[step.turn] = step.row

    def forget(self, turn: int) -> None:
        """``turn`` has no end: that was reported, and its row counts as free."""
        self._held.pop(turn, None)
        self._row_of.pop(turn, None)

    def leave(self, end: TurnEnd) -> None:
        """A turn leaves its row."""
        start, row = self._held.pop(end.turn, None), self._row_of.pop(end.turn, None)
        if start is None or row is None:
            return
        if end.row is not None:
            row = end.row
        if self.remembers_tokens and (row in self._left or len(self._left) < MOST_KEPT):
            self._left[row] = [*start.prompt_ids, *end.output_ids]
        if end.generator_digest is not None and len(self._states) < MOST_KEPT:
            self._states[end.generator_digest] = end.turn


def _is_free(taken: RowTaken) -> str | None:
    if taken.holder is None:
        return None
    return f"row {taken.row} is taken by turn {taken.start.turn}, and turn {taken.holder} has not left it"


def _keeps_nothing(taken: RowTaken) -> str | None:
    start, held = taken.start, present(taken.start.held)
    reused = start.reused_length
    if held.committed_length != reused:
        return f"row {taken.row} holds {held.committed_length} positions, and turn {start.turn} reuses {reused}"
    if held.num_pairs is not None and held.num_pairs != reused:
        return f"row {taken.row} holds {held.num_pairs} pairs of the drafter, and turn {start.turn} reuses {reused}"
    if taken.left_ids is None:
        return None
    problem = first_mismatch(start.prompt_ids[:reused], taken.left_ids[:reused], "reused token")
    return problem and f"row {taken.row}: {problem} of the turn that left the row"


def _draws_anew(taken: RowTaken) -> str | None:
    turn = taken.left_states.get(present(taken.start.generator_digest))
    return None if turn is None else f"turn {taken.start.turn} goes on drawing where turn {turn} left off"


#: Judged when a turn begins: of its prefill, the teacher's first forward.
ROWS: tuple[Invariant[RowTaken], ...] = (
    Invariant(
        id="rows.free-when-taken",
        statement="a turn begins in a row that no running turn has",
        check=_is_free,
        needs=("held",),  # who says what a row holds says which; of others, an absent row is not row 0
        phase="verify",
    ),
    Invariant(
        id="rows.nothing-kept",
        statement="a row holds nothing but what its turn reuses, and these are tokens of the turn that left it",
        check=_keeps_nothing,
        needs=("held",),
        phase="verify",
    ),
    Invariant(
        id="rows.draws-anew",
        statement="a turn's random numbers do not go on where another turn's ended",
        check=_draws_anew,
        needs=("generator_digest",),
        applies=lambda taken: taken.start.prefill.draw is not None,
        phase="verify",
    ),
)
