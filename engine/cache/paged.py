"""The teacher's KV cache with a paged prefix: blocks of a pool, found through each row's block table.

The tree's rows are not paged. They lie one after another in a separate buffer of whole blocks, so that a forward writes
them without looking anything up and none straddles a block. A commit copies the accepted path, and nothing else, from
there into the row's blocks. What attention reads is gathered from the blocks into keys and values of the shape
that the dense cache gives, so that each kernel computes the same bits.

Rows whose tokens and bits are equal share blocks; see ``blocks``. Letters as in ``buffer``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from specscope.engine.cache.blocks import BlockChange, BlockNote, BlockTables
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.moves import gather_places
from specscope.engine.cache.rows import RowList
from specscope.engine.digests import digest_tensors
from specscope.engine.host import sent

NO_BUFFER = "a paged cache has no buffer of its rows: read one by committed()"


class _Places(NamedTuple):
    """Where the positions of one block table lie in the pool."""

    table: tuple[int, ...]
    places: torch.Tensor  # (positions of all blocks of the table,)


class PagedCache(TreeCache):
    """Accepted paths are committed in any order: there is no commit strategy to choose, and none to fall back to.

    Args:
        num_layers: of the model.
        block_size: positions of a block.
        capacity: positions that the pool begins with, of all rows together.
        num_rows: rows of the batch.
    """

    def __init__(self, num_layers: int, block_size: int, capacity: int, num_rows: int = 1) -> None:
        super().__init__(num_layers, 0, num_rows)
        self.tables = BlockTables(num_rows, block_size, -(-capacity // block_size))
        self.pool: torch.Tensor | None = None  # (L, 2, G, blocks times positions of a block, W)
        self._tail: torch.Tensor | None = None  # (L, 2, active rows, G, whole blocks, W)
        self._read: RowList[list[int]] = RowList([] for _ in range(num_rows))
        self._changes: RowList[BlockChange] = RowList(BlockChange() for _ in range(num_rows))
        self._places_of: dict[int, _Places] = {}

    @property
    def buffer(self) -> torch.Tensor:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(NO_BUFFER)

    def copy(self) -> TreeCache:
        """No step works on a copy of it.

        Raises:
            ValueError: always.
        """
        raise ValueError("a paged cache is not copied: use the dense one for a strategy that works on copies")

    def append(
        self, layer: int, tail: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes (B, G, P, W) of one layer behind ``tail`` positions of the tail, and gathers what attention reads:
        each active row's prefix, its tail right after it, and zeros up to the longest row's end."""
        end = tail + keys.shape[-2]
        written = self._tail_for(keys, end)[layer, :, :, :, :end]  # (2, B, G, tail, W)
        written[0, :, :, tail:] = keys
        written[1, :, :, tail:] = values
        lengths = self.active_lengths
        _, rows, heads, _, width = written.shape
        seen = keys.new_zeros((2, rows, heads, max(lengths) + end, width))
        for number, length in enumerate(lengths):
            if length:
                seen[:, number, :, :length] = self._prefix_read(layer, self._active.start + number, length)
            seen[:, number, :, length : length + end] = written[:, number]
        seen_keys, seen_values = seen.unbind()
        return seen_keys, seen_values

    def _prefix_read(self, layer: int, row: int, length: int) -> torch.Tensor:
        """(2, G, length, W) as a forward reads it."""
        table = self._read[row] = list(self.tables.read_table(row))
        return self._gathered(slice(layer, layer + 1), row, table, 0, length)[0]

    def _tail_for(self, like: torch.Tensor, length: int) -> torch.Tensor:
        """The tail's buffer with room for ``length`` positions of each active row, in the shape of ``like``
        (B, G, P, W) else.

        Raises:
            ValueError: where a layer's heads are not those of the first.
        """
        rows, heads, _, width = like.shape
        held = self._tail
        if held is not None and (held.shape[3], held.shape[5]) != (heads, width):
            raise ValueError(f"got keys of shape {tuple(like.shape)}, wanted every layer's like the first one's")
        if held is None or held.shape[2] != rows or held.shape[4] < length:
            room = self.tables.num_covering(length) * self.tables.block_size
            self._tail = like.new_zeros((len(self._layers), 2, rows, heads, room, width))
            if held is not None and held.shape[2] == rows:  # else other rows were active, whose tail is over
                self._tail[:, :, :, :, : held.shape[4]] = held
        assert self._tail is not None
        return self._tail

    def _filled(self) -> torch.Tensor:
        """The tail's buffer.

        Raises:
            ValueError: where no forward has filled it yet.
        """
        if self._tail is None:
            raise ValueError("the cache is empty: no forward has filled it yet")
        return self._tail

    def _gathered(self, layers: slice, row: int, table: list[int], start: int, end: int) -> torch.Tensor:
        """A copy (L, 2, G, K, W) of positions ``start`` to ``end`` - 1 of ``row`` through ``table``; zeros where it has
        no block for them."""
        assert self.pool is not None
        known = self._places_of.get(row)
        if known is None or known.table != tuple(table):
            size = self.tables.block_size
            firsts = sent(table, self.pool.device, torch.int64)[:, None] * size
            places = (firsts + torch.arange(size, device=self.pool.device)).flatten()
            known = self._places_of[row] = _Places(tuple(table), places)
        gathered = self.pool[layers].index_select(3, known.places[start:end])
        missing = end - start - gathered.shape[3]
        return torch.nn.functional.pad(gathered, (0, 0, 0, missing)) if missing else gathered

    def at(self, row: int, places: list[int]) -> torch.Tensor:
        """A copy (L, 2, G, K, W) of the given absolute positions of one row: keys, values."""
        tail = self._filled()[:, :, row - self._active.start, :, : self.tail_length]
        kept = self.committed(row)
        whole = tail if kept is None else torch.cat([kept, tail], dim=3)
        return whole.index_select(3, sent(places, whole.device))

    def prefix(self, layer: int, row: int, length: int) -> torch.Tensor:
        """A copy (2, G, length, W) of the first ``length`` positions of one layer and row."""
        return self._gathered(slice(layer, layer + 1), row, self.tables.tables[row], 0, length)[0]

    def committed(self, row: int) -> torch.Tensor | None:
        """A copy (L, 2, G, length, W) of all committed positions of one row; None where there are none."""
        return self.committed_since(row, 0) if self.committed_lengths[row] else None

    def committed_since(self, row: int, start: int) -> torch.Tensor:
        """A copy (L, 2, G, K, W) of the committed positions of one row from ``start`` on."""
        return self._gathered(slice(None), row, self.tables.tables[row], start, self.committed_lengths[row])

    def truncate(self, row: int, length: int) -> None:
        """Keeps the first ``length`` committed positions of ``row``, and gives up the blocks of the others.

        Raises:
            ValueError: where fewer are committed.
        """
        super().truncate(row, length)
        self.tables.truncate(row, length)

    def arrange_tail(self, num_layers: int, places: torch.Tensor) -> None:
        """Makes the tail of the first ``num_layers`` layers what stands at its ``places`` (B, K), in that order."""
        share, count = self._filled()[:num_layers], places.shape[1]
        share[:, :, :, :, :count] = gather_places(share, places)
        for layer in self._layers[:num_layers]:
            layer.tail_length = count

    def commit_length(self, counts: list[int]) -> None:
        """Commits the first ``counts`` positions of each active row's tail as they lie, and drops the others.

        Raises:
            ValueError: where the tail is shorter.
        """
        if not all(0 <= count <= self.tail_length for count in counts):
            raise ValueError(f"got {counts} positions to commit, wanted 0 to {self.tail_length}, the tail's length")
        tail = self._filled()
        for number, count in enumerate(counts):
            self._write(self._active.start + number, tail[:, :, number, :, :count])
        self.drop_tail()

    def commit_paths(self, branch: TreeCache, slots: list[list[int]]) -> str | None:
        """Copies the tail positions ``slots`` of each row, in that order, into its blocks, and drops the others.

        Returns:
            None: no order is one that it could not take.

        Raises:
            ValueError: where a slot is not in the tail.
        """
        for path in slots:
            if any(not 0 <= slot < self.tail_length for slot in path):
                raise ValueError(f"got slots {path}, wanted each in 0..{self.tail_length - 1}, the tail")
        tail = self._filled()
        for row, path in enumerate(slots):
            self._write(row, tail[:, :, row].index_select(3, sent(path, tail.device, torch.int64)))
        self.drop_tail()
        return None

    def _write(self, row: int, kept: torch.Tensor) -> None:
        """Appends ``kept`` (L, 2, G, K, W) to the committed positions of ``row``."""
        start, size = self.committed_lengths[row], self.tables.block_size
        end = start + kept.shape[3]
        change = self._changes[row] = self.tables.write(row, start, end)
        pool = self._pool_like(kept)
        for copy in change.copies:
            source = pool[:, :, :, copy.source * size : (copy.source + 1) * size]
            pool[:, :, :, copy.target * size : (copy.target + 1) * size] = source
        table = self.tables.tables[row]
        places = [table[position // size] * size + position % size for position in range(start, end)]
        if places:
            pool.index_copy_(3, sent(places, pool.device), kept)
        self.committed_lengths[row] = end

    def _pool_like(self, like: torch.Tensor) -> torch.Tensor:
        """The pool with room for all blocks; allocated in the shape of ``like`` (L, 2, G, K, W) at first."""
        layers, two, heads, _, width = like.shape
        length, before = self.tables.num_blocks * self.tables.block_size, self.pool
        if before is None or before.shape[3] < length:
            self.pool = like.new_zeros((layers, two, heads, length, width))
            if before is not None:
                self.pool[:, :, :, : before.shape[3]] = before
        assert self.pool is not None
        return self.pool

    def add_rows(self, count: int) -> None:
        """Adds ``count`` rows without a block behind the others."""
        super().add_rows(count)
        self.tables.add_rows(count)
        self._read += [[] for _ in range(count)]
        self._changes += [BlockChange() for _ in range(count)]

    def drop_row(self, row: int) -> None:
        """Ends ``row`` and gives up its blocks: the last row takes its number."""
        self.tables.drop_row(row)
        self._read.drop_row(row)
        self._changes.drop_row(row)
        self.committed_lengths[row] = self.committed_lengths[-1]
        self.committed_lengths.pop()
        self._active = slice(0, self.num_rows)
        self._places_of.clear()

    def share(self, row: int, common: list[int]) -> None:
        """Takes blocks of another row in place of those of ``row`` that hold the same tokens, ``common`` of them with
        each row from the beginning on, and the same bits. Of the last one, which may be full in part, that lasts until
        one of the two writes to it."""
        size, length = self.tables.block_size, self.committed_lengths[row]
        equal = [min(c, length, held) for c, held in zip(common, self.committed_lengths, strict=True)]
        equal[row] = 0
        other = equal.index(max(equal))
        for index in range(self.tables.num_covering(equal[other])):
            start, end = index * size, min((index + 1) * size, length)
            if end <= equal[other] and self._holds_equal(row, other, start, end):
                self.tables.share(row, other, index)

    def _holds_equal(self, row: int, other: int, start: int, end: int) -> bool:
        """Whether two rows hold the same bits there."""
        tables = self.tables.tables
        mine, theirs = (self._gathered(slice(None), r, tables[r], start, end) for r in (row, other))
        return torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8))

    def block_note(self, row: int, token_ids: list[list[int]]) -> BlockNote | None:
        """What is to be recorded of the blocks of ``row``; ``token_ids`` are those that each row holds."""
        size = self.tables.block_size

        def digests(index: int, rows: list[int]) -> list[str]:
            end = min((index + 1) * size, *(self.committed_lengths[holder] for holder in rows))
            return [digest_tensors(np.array(token_ids[holder][:end], dtype=np.int64)) for holder in rows]

        return self.tables.note(row, self._changes[row], self._read[row], digests)
