"""How the levels of a draft number their candidates: the format's rule for it, in one place.

The lists of a level are flat. Its rows are the candidates that were fed; the first level has one row, the root. With R
rows and n tokens each row proposed ``max(1, n // R)`` of them, so that entry i is of row ``i // (n // R)``; what is
left over belongs to the last row. Candidates are numbered from 0 over all levels, and a level names its rows by those
numbers.

Malformed levels have one answer, the ``ValueError`` of ``candidates_of``: to the oracle it is a violation, and the
comparison takes such a draft for one without candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count, repeat
from typing import NamedTuple

from specscope.schemas import DraftLevel, Step


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


class CandidateRow(NamedTuple):
    """What a row of a level proposed: entries ``start`` to ``stop`` of the flat lists of that level."""

    level: int  # from 0
    row: int  # of its level, from 0
    parent: int | None  # the number of the candidate that was fed; None where that is the root
    first: int  # the number of its first candidate
    start: int
    stop: int


def rows_of(levels: Sequence[DraftLevel]) -> list[CandidateRow]:
    """Every row, in the order in which its candidates are numbered.

    Raises:
        ValueError: where a level has another number of log-probabilities than of tokens, or was fed a candidate that no
            level before it has.
    """
    rows: list[CandidateRow] = []
    before = 0  # candidates of the levels before
    for number, level in enumerate(levels):
        size = len(level.tokens)
        if size != len(level.logprobs):
            raise ValueError(f"level {number + 1}: {len(level.logprobs)} log-probabilities for {size} tokens")
        if level.frontier and (min(level.frontier) < 0 or max(level.frontier) >= before):
            raise ValueError(f"level {number + 1} was fed a candidate that the levels before it do not have")
        parents: Sequence[int | None] = level.frontier or [None]
        width = max(1, size // len(parents))
        starts = [min(row * width, size) for row in range(len(parents))]
        firsts = [before + start for start in starts]
        # By columns, as below: each step is read more than once. What is left over belongs to the last row.
        columns = zip(repeat(number), count(), parents, firsts, starts, [*starts[1:], size], strict=False)
        rows += map(CandidateRow._make, columns)
        before += size
    return rows


def candidates_of(levels: Sequence[DraftLevel]) -> list[Candidate]:
    """Every candidate, each at the index that is its number.

    Raises:
        ValueError: as ``rows_of``.
    """
    candidates: list[Candidate] = []
    for number, row, fed, first, start, stop in rows_of(levels):
        parent = None if fed is None else candidates[fed]
        above = 0.0 if parent is None else parent.score
        logprobs = levels[number].logprobs[start:stop]
        # By columns, because a draft of 60 nodes has some 500 candidates.
        columns = zip(
            count(first),
            repeat(number),
            range(start, stop),
            repeat(row),
            count(),
            levels[number].tokens[start:stop],
            logprobs,
            [above + logprob for logprob in logprobs],
            repeat(parent),
            strict=False,
        )
        candidates += map(Candidate._make, columns)
    return candidates


@dataclass(frozen=True, kw_only=True)
class CandidateColumns:
    """Every candidate by its number, in columns: for what asks the same of all of them, some 700 at 60 nodes."""

    parents: list[int | None]  # the number of its parent; None below the root
    tokens: list[int]
    scores: list[float]  # sums of log-probabilities from the root
    levels: list[range]  # the numbers of each level

    @cached_property
    def numbers(self) -> dict[tuple[int | None, int], int]:
        """Candidates by their parent's number, None for the root, and token; of equal siblings the first."""
        places = list(zip(self.parents, self.tokens, strict=True))
        return dict(zip(reversed(places), reversed(range(len(places))), strict=True))

    @cached_property
    def firsts(self) -> frozenset[int]:
        """The numbers of those that are the first of equal siblings."""
        return frozenset(self.numbers.values())

    def distinct(self, numbers: range) -> Sequence[int]:
        """Of ``numbers`` those that are the first of equal siblings, in order."""
        if len(self.numbers) == len(self.tokens):
            return numbers
        return [number for number in numbers if number in self.firsts]


def columns_of(levels: Sequence[DraftLevel]) -> CandidateColumns:
    """Every candidate, in columns.

    Raises:
        ValueError: as ``rows_of``.
    """
    parents: list[int | None] = []
    scores: list[float] = []
    for number, _, fed, _, start, stop in rows_of(levels):
        above = 0.0 if fed is None else scores[fed]
        parents += [fed] * (stop - start)
        scores += [above + logprob for logprob in levels[number].logprobs[start:stop]]
    tokens = [token for level in levels for token in level.tokens]
    ends = [0, *accumulate(len(level.tokens) for level in levels)]
    return CandidateColumns(parents=parents, tokens=tokens, scores=scores, levels=list(map(range, ends, ends[1:])))


def recorded_candidates(step: Step) -> list[Candidate] | None:
    """What the drafter of ``step`` proposed; None where that was not recorded, or its levels are malformed."""
    levels = step.draft.levels if step.draft is not None else None
    try:
        return candidates_of(levels) if levels else None
    except ValueError:
        return None
