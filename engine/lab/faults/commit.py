"""Faults of the commit, F24, F25 and F33: how much is kept, which rows, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from specscope.engine.cache.buffer import InPlace, TreeCache
from specscope.engine.cache.commit import Commit, RowCustody
from specscope.engine.cache.moves import gather_places
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget

ROOM = 12  # rows that are left in the buffer of F33 when the first step begins


def _changing_slots(change: Callable[[list[int], int], list[int]]) -> Callable[[FaultTarget], FaultTarget]:
    """``change`` gets a row's slots, the root's first, and how many slots there are."""

    def inject(target: FaultTarget) -> FaultTarget:
        honest = target.phases.commit

        def commit(
            cache: TreeCache, branch: TreeCache, slots: list[list[int]], custody: list[RowCustody | None]
        ) -> list[Commit]:
            return honest(cache, branch, [change(path, branch.tail_length) for path in slots], custody)

        return target.with_phases(commit=commit)

    return inject


def _with_a_rejected_one(path: list[int], num_slots: int) -> list[int]:
    return [*path, path[-1] + 1] if path[-1] + 1 < num_slots else path


def _one_short(path: list[int], num_slots: int) -> list[int]:
    return path[:-1] if len(path) > 1 else path


def _next_row(path: list[int], num_slots: int) -> list[int]:
    return [*path[:-1], path[-1] + 1] if len(path) > 1 and path[-1] + 1 < num_slots else path


def _not_trimmed(target: FaultTarget) -> FaultTarget:
    honest = target.phases.commit

    def commit(
        cache: TreeCache, branch: TreeCache, slots: list[list[int]], custody: list[RowCustody | None]
    ) -> list[Commit]:
        num_slots = branch.tail_length
        commits = []
        for row, committed in enumerate(honest(cache, branch, slots, custody)):
            cache.committed_lengths[row] = committed.committed_before + num_slots
            commits.append(replace(committed, committed_after=cache.committed_lengths[row]))
        return commits

    return target.with_phases(commit=commit)


class LastFirst(InPlace):
    """Moves row by row, the last one first: onto rows that are yet to be moved."""

    def keep(self, cache: TreeCache, branch: TreeCache, places: torch.Tensor) -> None:
        """Copies within the tail without a copy in between."""
        for row, (length, row_places) in enumerate(zip(cache.committed_lengths, places.tolist(), strict=True)):
            for number in reversed(range(len(row_places))):
                cache.buffer[:, :, row, :, length + number] = branch.buffer[:, :, row, :, row_places[number]].clone()


class Wrapping(InPlace):
    """Writes what lies after ``capacity`` to the buffer's beginning."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity

    def destination(self, place: int) -> int:
        """Where a row goes that is meant for ``place``."""
        return place % self._capacity

    def keep(self, cache: TreeCache, branch: TreeCache, places: torch.Tensor) -> None:
        """One gather, and a write a row."""
        kept = gather_places(branch.buffer, places)
        for row, length in enumerate(cache.committed_lengths):
            for number in range(kept.shape[4]):
                cache.buffer[:, :, row, :, self.destination(length + number)] = kept[:, :, row, :, number]


def _overlapping(target: FaultTarget) -> FaultTarget:
    honest = target.phases.commit

    def commit(
        cache: TreeCache, branch: TreeCache, slots: list[list[int]], custody: list[RowCustody | None]
    ) -> list[Commit]:
        strategy, cache.strategy = cache.strategy, LastFirst()
        commits = honest(cache, branch, slots, custody)
        cache.strategy = strategy
        return commits

    return target.with_phases(commit=commit)


def _wrapping(target: FaultTarget) -> FaultTarget:
    honest = target.phases.commit
    wrappings: list[Wrapping] = []

    def commit(
        cache: TreeCache, branch: TreeCache, slots: list[list[int]], custody: list[RowCustody | None]
    ) -> list[Commit]:
        if not wrappings:
            wrappings.append(Wrapping(min(cache.committed_lengths) + ROOM))
        strategy, cache.strategy = cache.strategy, wrappings[0]
        commits = honest(cache, branch, slots, custody)
        cache.strategy = strategy
        return [replace(c, destination_rows=[wrappings[0].destination(p) for p in c.destination_rows]) for c in commits]

    return target.with_phases(commit=commit)


COMMIT_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F24.rejected",
        says="a rejected slot is committed with the path",
        expect=Expectation(places=(("commit", "committed_after"),), invariant="commit.length-equation"),
        inject=_changing_slots(_with_a_rejected_one),
    ),
    Fault(
        id="F24.short",
        says="one accepted slot less is committed",
        expect=Expectation(places=(("commit", "committed_after"),), invariant="commit.length-equation"),
        inject=_changing_slots(_one_short),
    ),
    Fault(
        id="F24.no-trim",
        says="what was rejected stays in the cache",
        expect=Expectation(places=(("commit", "committed_after"),), invariant="commit.length-equation"),
        inject=_not_trimmed,
    ),
    Fault(
        id="F25.row",
        says="the slot after the last accepted is committed in its place",
        expect=Expectation(places=(("commit", "source_slots"),), invariant="commit.sources-are-path"),
        inject=_changing_slots(_next_row),
    ),
    Fault(
        id="F25.overlap",
        says="rows are moved in place, last first, over rows that are yet to be moved",
        expect=Expectation(places=(("commit", "content-moved"),), invariant="commit.content-moved"),
        inject=_overlapping,
        cache="dense",
    ),
    Fault(
        id="F33",
        says="rows behind the buffer's end are written to its beginning",
        expect=Expectation(places=(("commit", "destination_rows"),), invariant="commit.prefix-unchanged"),
        scenario="capacity",
        inject=_wrapping,
        cache="dense",
    ),
)
