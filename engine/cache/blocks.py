"""Which blocks hold the committed prefix of each row: block tables, reference counts and a free list.

Knows no torch. A block holds ``block_size`` positions of all layers; block i of a row's table holds the row's positions
i * block_size and up. Several tables may name one block, and then none of their rows may write to it: who wants to is
given a copy (copy on write).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from specscope.engine.cache.rows import RowList

GROWTH = 256  # positions by which the blocks grow when none is free


class BlockCopy(NamedTuple):
    """A block whose content a row must be given before it writes to it."""

    source: int
    target: int


@dataclass(kw_only=True)
class BlockChange:
    """What became of the blocks of one row."""

    taken: list[int] = field(default_factory=list)  # from the free list, in order
    freed: list[int] = field(default_factory=list)  # back to it, in order
    copies: list[BlockCopy] = field(default_factory=list)


class SharedBlock(NamedTuple):
    """A block that several rows have in their tables."""

    block: int
    rows: list[int]
    token_digests: list[str]  # of each of the rows: its tokens up to the last position that all of them hold of it


class BlockNote(NamedTuple):
    """What is recorded of one row's blocks, and of all of them."""

    read: list[int]  # the table that the last forward read the row's prefix through
    table: list[int]  # as it is now
    references: list[int]  # of each block of it
    taken: list[int]
    freed: list[int]
    num_blocks: int
    num_free: int  # entries of the free list
    num_held: int  # blocks in any row's table
    num_accounted: int  # blocks that are free, or in a row's table
    shared: list[SharedBlock]  # of the blocks of the table those that other rows have as well


class BlockTables:
    """The blocks of a batch of rows.

    Args:
        num_rows: rows of the batch; each begins without a block.
        block_size: positions that a block holds.
        num_blocks: blocks to begin with, all of them free.

    Attributes:
        tables: of each row, the blocks of its positions in order.
        references: of each block, how many tables it is in. 0: it is free.
        free: blocks that can be taken, the next one last.
    """

    def __init__(self, num_rows: int, block_size: int, num_blocks: int = 0) -> None:
        if block_size < 1:
            raise ValueError(f"got blocks of {block_size} positions, wanted 1 or more")
        self.block_size = block_size
        self.tables: RowList[list[int]] = RowList([] for _ in range(num_rows))
        self.references: list[int] = []
        self.free: list[int] = []
        self.grow(num_blocks)

    @property
    def num_blocks(self) -> int:
        """All blocks that there are."""
        return len(self.references)

    def num_covering(self, length: int) -> int:
        """How many blocks ``length`` positions take."""
        return -(-length // self.block_size)

    def read_table(self, row: int) -> list[int]:
        """The table that a forward reads the prefix of ``row`` through."""
        return self.tables[row]

    def grow(self, count: int) -> None:
        """Adds ``count`` blocks, of which the lowest is taken first."""
        first = self.num_blocks
        self.references += [0] * count
        self.free[:0] = reversed(range(first, first + count))

    def write(self, row: int, start: int, end: int) -> BlockChange:
        """Makes the blocks of positions ``start`` to ``end`` - 1 of ``row`` its own: takes those that are missing, and
        replaces those that other rows have as well by ones that their content is to be copied to."""
        change, table, size = BlockChange(), self.tables[row], self.block_size
        for index in range(start // size, min(len(table), self.num_covering(end))):
            block = table[index]
            if self.references[block] > 1:
                table[index] = self._take(change)
                self._release(block, change)
                change.copies.append(BlockCopy(block, table[index]))
        while len(table) < self.num_covering(end):
            table.append(self._take(change))
        return change

    def truncate(self, row: int, length: int) -> BlockChange:
        """Gives up the blocks of ``row`` behind its first ``length`` positions."""
        change, table = BlockChange(), self.tables[row]
        kept = self.num_covering(length)
        dropped = table[kept:]
        del table[kept:]
        for block in dropped:
            self._release(block, change)
        return change

    def share(self, row: int, other: int, index: int) -> BlockChange:
        """Replaces block ``index`` of the table of ``row`` by that of ``other``, which holds the same.

        Raises:
            ValueError: where one of the tables has no such block.
        """
        change, mine, theirs = BlockChange(), self.tables[row], self.tables[other]
        if not 0 <= index < min(len(mine), len(theirs)):
            raise ValueError(f"got block {index} to share, and the tables have {len(mine)} and {len(theirs)}")
        before, block = mine[index], theirs[index]
        if before != block:
            mine[index] = block
            self.references[block] += 1
            self._release(before, change)
        return change

    def add_rows(self, count: int) -> None:
        """Adds ``count`` rows without a block behind the others."""
        self.tables += [[] for _ in range(count)]

    def drop_row(self, row: int) -> BlockChange:
        """Ends ``row`` and gives up its blocks: the last row takes its number."""
        change = self.truncate(row, 0)
        self.tables.drop_row(row)
        return change

    def holders(self, block: int) -> list[int]:
        """The rows whose tables have ``block``."""
        return [row for row, table in enumerate(self.tables) if block in table]

    def note(
        self, row: int, change: BlockChange, read: list[int], digests: Callable[[int, list[int]], list[str]]
    ) -> BlockNote:
        """What is to be recorded of ``row``, whose blocks went through ``change``.

        Args:
            row: which one.
            change: what was taken and freed for it.
            read: the table that its last forward read through.
            digests: of the tokens that each of some rows holds up to the end of the block at an index.
        """
        table, held = self.tables[row], {block for table in self.tables for block in table}
        shared = []
        for index, block in enumerate(table):
            rows = self.holders(block) if self.references[block] > 1 else [row]
            if len(rows) > 1:
                shared.append(SharedBlock(block, rows, digests(index, rows)))
        return BlockNote(
            read=list(read),
            table=list(table),
            references=[self.references[block] for block in table],
            taken=list(change.taken),
            freed=list(change.freed),
            num_blocks=self.num_blocks,
            num_free=len(self.free),
            num_held=len(held),
            num_accounted=len(held.union(self.free)),
            shared=shared,
        )

    def _take(self, change: BlockChange) -> int:
        if not self.free:
            self.grow(max(1, self.num_covering(GROWTH)))
        block = self.free.pop()
        self.references[block] += 1
        change.taken.append(block)
        return block

    def _release(self, block: int, change: BlockChange) -> None:
        """One table less has ``block``.

        Raises:
            ValueError: where none had it.
        """
        if self.references[block] < 1:
            raise ValueError(f"block {block} is given back, and no row had it")
        self.references[block] -= 1
        if not self.references[block]:
            self.free.append(block)
            change.freed.append(block)
