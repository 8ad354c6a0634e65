"""How the levels of a draft number their candidates: the format's rule for it, in one place.

The lists of a level are flat. Its rows are the candidates that were fed; the first level has one row, the root. With R
rows and n tokens each row proposed ``max(1, n // R)`` of them, so that entry i is of row ``i // (n // R)``; what is
left over belongs to the last row. Candidates are numbered from 0 over all levels, and a level names its rows by those
numbers.

Malformed levels have one answer, the ``ValueError`` of ``candidates_of``: to the oracle it is a violation, and the
comparison takes such a draft for one without candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from specscope.schemas import DraftLevel


class Candidate(NamedTuple):
    """A token that the drafter proposed under another candidate or the root."""

    number: int  # over all levels, from 0
    level: int  # from 0
    entry: int  # of the lists of its level, from 0
    row: int  # of its level, from 0
    rank: int  # among the proposals of its row, from 0
    token: int
    logprob: float  # given its parent
    score: float  # sum of log-probabilities from the root
    parent: Candidate | None  # None below the root

    @property
    def parent_number(self) -> int | None:
        """The number of its parent; None below the root."""
        return None if self.parent is None else self.parent.number

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that lead to it from the root."""
        return (*(() if self.parent is None else self.parent.ranks), self.rank)


def candidates_of(levels: Sequence[DraftLevel]) -> list[Candidate]:
    """Every candidate, each at the index that is its number.

    Raises:
        ValueError: where a level has another number of log-probabilities than of tokens, or was fed a candidate that no
            level before it has.
    """
    candidates: list[Candidate] = []
    for number, level in enumerate(levels):
        candidates += _level_candidates(number, level, candidates)
    return candidates


def _level_candidates(number: int, level: DraftLevel, before: list[Candidate]) -> list[Candidate]:
    if len(level.tokens) != len(level.logprobs):
        raise ValueError(f"level {number + 1}: {len(level.logprobs)} log-probabilities for {len(level.tokens)} tokens")
    fed = [_fed(number, row, before) for row in level.frontier]
    parents: list[Candidate | None] = [*fed] or [None]
    width = max(1, len(level.tokens) // len(parents))
    candidates = []
    for entry, (token, logprob) in enumerate(zip(level.tokens, level.logprobs, strict=True)):
        row = min(entry // width, len(parents) - 1)
        parent = parents[row]
        candidate = Candidate(
            number=len(before) + entry,
            level=number,
            entry=entry,
            row=row,
            rank=entry - row * width,
            token=token,
            logprob=logprob,
            score=logprob if parent is None else parent.score + logprob,
            parent=parent,
        )
        candidates.append(candidate)
    return candidates


def _fed(level: int, number: int, before: list[Candidate]) -> Candidate:
    """The candidate of that number, which a row of ``level`` was fed."""
    if not 0 <= number < len(before):
        raise ValueError(f"level {level + 1} was fed a candidate that the levels before it do not have")
    return before[number]


def first_of_equals(candidates: Iterable[Candidate]) -> dict[tuple[int | None, int], Candidate]:
    """Candidates by their parent's number, None for the root, and token; of equal siblings the first."""
    first: dict[tuple[int | None, int], Candidate] = {}
    for candidate in candidates:
        first.setdefault((candidate.parent_number, candidate.token), candidate)
    return first
