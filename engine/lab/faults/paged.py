"""Faults of a paged cache, F36: which blocks a row is read from, and whose they are."""

from __future__ import annotations

from collections.abc import Callable

from specscope.engine.cache.blocks import BlockChange, BlockTables
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import Commit, RowCustody
from specscope.engine.cache.paged import PagedCache
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget, Places, check_cache
from specscope.tracer.errors import UsageError

Spoil = Callable[[PagedCache], None]


class StaleTables(BlockTables):
    """Tables that are read as they were before the last write, with the first block in place of what they lacked then.

    Args:
        honest: the tables of a session, which go on as these.
    """

    def __init__(self, honest: BlockTables) -> None:
        super().__init__(0, honest.block_size)
        self.tables, self.references, self.free = honest.tables, honest.references, honest.free
        self._before: dict[int, list[int]] = {}  # by row

    def write(self, row: int, start: int, end: int) -> BlockChange:
        """As it must be; the table that is read is the one from before."""
        self._before[row] = list(self.tables[row])
        return super().write(row, start, end)

    def read_table(self, row: int) -> list[int]:
        """The table from before the last write."""
        now, before = self.tables[row], self._before.get(row)
        if not before:  # a prompt has just been taken in
            return now
        return [*before, *before[:1] * (len(now) - len(before))]

    def drop_row(self, row: int) -> BlockChange:
        """As it must be."""
        self._before.clear()
        return super().drop_row(row)


def _after_each_commit(fault_id: str, spoil: Callable[[], Spoil]) -> Callable[[FaultTarget], FaultTarget]:
    """``spoil`` makes what is done to the cache of one run."""

    def inject(target: FaultTarget) -> FaultTarget:
        honest, spoil_it = target.phases.commit, spoil()

        def commit(
            cache: TreeCache, branch: TreeCache, slots: list[list[int]], custody: list[RowCustody | None]
        ) -> list[Commit]:
            commits = honest(cache, branch, slots, custody)
            check_cache(fault_id, "paged", "paged" if isinstance(cache, PagedCache) else "dense")
            assert isinstance(cache, PagedCache)
            spoil_it(cache)
            return commits

        return target.with_phases(commit=commit)

    return inject


def _stale() -> Spoil:
    def spoil(cache: PagedCache) -> None:
        if not isinstance(cache.tables, StaleTables):
            cache.tables = StaleTables(cache.tables)

    return spoil


def _once(change: Callable[[BlockTables], None]) -> Spoil:
    """What is done after the first commit."""
    done: list[PagedCache] = []

    def spoil(cache: PagedCache) -> None:
        if not done:
            done.append(cache)
            change(cache.tables)

    return spoil


def _give_back(tables: BlockTables) -> None:
    tables.free.append(tables.tables[0][0])


def _take_anothers(tables: BlockTables) -> None:
    if len(tables.tables) == 1:
        raise UsageError("F36.other-row: the fault takes two rows, got one: give two prompts and --batch-size 2")
    tables.share(1, 0, 0)


def _drop_partial(cache: PagedCache) -> None:
    for row, length in enumerate(cache.committed_lengths):
        cache.tables.truncate(row, length - length % cache.tables.block_size)


def _paged_fault(form: str, says: str, spoil: Callable[[], Spoil], expect: tuple[Places, str]) -> Fault:
    places, invariant = expect
    fault_id = f"F36.{form}"
    return Fault(
        id=fault_id,
        says=says,
        expect=Expectation(places=places, invariant=invariant),
        scenario="paged",
        inject=_after_each_commit(fault_id, spoil),
        cache="paged",
    )


PAGED_FAULTS: tuple[Fault, ...] = (
    _paged_fault(
        "stale",
        "the prefix is read through the block table of the step before",
        _stale,
        ((("verify", ""),), "paging.table-read"),
    ),
    _paged_fault(
        "reused",
        "a block that is in use is given back, and taken by who comes next",
        lambda: _once(_give_back),
        ((("commit", "freed-once"),), "paging.freed-once"),
    ),
    _paged_fault(
        "other-row",
        "a row has the first block of another row, whose tokens are others",
        lambda: _once(_take_anothers),
        ((("commit", "shared-alike"),), "paging.shared-alike"),
    ),
    _paged_fault(
        "dropped",
        "the last block is given up where it is full in part",
        lambda: _drop_partial,
        ((("commit", "table-covers"),), "paging.table-covers"),
    ),
)
