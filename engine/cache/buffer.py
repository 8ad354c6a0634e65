"""The teacher's KV cache: one preallocated buffer; per row a committed prefix, and a tail that a step works in.

Built on transformers' Cache interface, whose own ``crop`` changes meaning between releases. The working part is small:

- ``branch`` gives the cache that a step's forwards write to (itself, or a copy: the strategy says);
- a forward *extends* it: every row's keys and values go right after its own prefix, into its tail;
- ``commit_length`` keeps the tail's first rows, ``commit_paths`` chosen ones in a given order; both drop the others.

The committed prefix is never written. All layers share one buffer, so that a commit is one gather and one write.

Letters: L layers, B rows, G key-value heads, C capacity, P positions of a forward, K positions kept, W head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from specscope.engine.cache.blocks import BlockNote
from specscope.engine.cache.moves import enlarged, filled, gather_places, put_behind
from specscope.engine.host import sent

GROWTH = 256


class FixedPlaces(NamedTuple):
    """Where a captured forward writes and how far it sees."""

    places: torch.Tensor  # (B, P) absolute positions
    num_columns: int


class CommitStrategy(Protocol):
    """How chosen rows of the tail become part of the prefix. All strategies leave the same bits."""

    name: str

    def branch(self, cache: TreeCache) -> TreeCache:
        """The cache that a step's forwards write to."""

    def keep(self, cache: TreeCache, branch: TreeCache, places: torch.Tensor) -> None:
        """Moves what stands at ``places`` (B, K) of ``branch`` to right after each row's prefix in ``cache``."""

    def objection(self, cache: TreeCache, slots: list[list[int]]) -> str | None:
        """Why these tail slots cannot be committed this way; None where they can."""


class TreeCacheLayer(CacheLayerMixin):
    """One layer's share of the buffer, in the form that transformers expects."""

    is_sliding = False

    def __init__(self, cache: TreeCache, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        self._cache = cache
        self._number = number
        self.tail_length = 0  # positions after the prefix, the same in every active row

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the cache allocates for all layers at the first update."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (B, G, P, W) after each active row and returns all positions up to the longest row's end.

        Keys may be wider than values, or the other way round, as in latent attention: zeros fill the narrower up.
        """
        width_of_keys, width_of_values = key_states.shape[-1], value_states.shape[-1]
        if width_of_keys != width_of_values:
            key_states, value_states = filled(key_states, width_of_values), filled(value_states, width_of_keys)
        keys, values = self._cache.append(self._number, self.tail_length, key_states, value_states)
        self.tail_length += key_states.shape[-2]
        if width_of_keys != width_of_values:
            keys, values = keys[..., :width_of_keys], values[..., :width_of_values]
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Key length and offset of a forward with ``query_length`` positions."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Positions in use by the longest active row."""
        return max(self._cache.active_lengths) + self.tail_length

    def get_max_length(self) -> int:
        """No maximum (transformers says it with -1)."""
        return -1


class TreeCache(Cache):
    """All layers, with a committed length a row."""

    def __init__(
        self, num_layers: int, capacity: int, num_rows: int = 1, strategy: CommitStrategy | None = None
    ) -> None:
        self._layers = [TreeCacheLayer(self, number) for number in range(num_layers)]
        super().__init__(layers=list(self._layers))
        self._capacity = capacity
        self._buffer: torch.Tensor | None = None  # (L, 2, B, G, C, W): keys, values
        self.committed_lengths = [0] * num_rows
        self._active = slice(0, num_rows)
        self._places: tuple[tuple[int, ...], torch.Tensor] | None = None  # of the last ragged append
        self._fixed: FixedPlaces | None = None
        self.strategy: CommitStrategy = strategy or InPlace()

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        return len(self.committed_lengths)

    @property
    def active_lengths(self) -> list[int]:
        """Committed lengths of the rows that a forward runs over."""
        return self.committed_lengths[self._active]

    @property
    def tail_length(self) -> int:
        """Positions after the committed prefix of the active rows."""
        return self._layers[0].tail_length

    @property
    def layer_tails(self) -> list[int]:
        """The same, layer by layer; they differ only while some layers have run ahead."""
        return [layer.tail_length for layer in self._layers]

    @contextmanager
    def only(self, row: int) -> Iterator[None]:
        """Inside, forwards run over ``row`` alone."""
        before, self._active = self._active, slice(row, row + 1)
        try:
            yield
        finally:
            self._active = before

    @contextmanager
    def fixed(self, places: torch.Tensor, num_columns: int) -> Iterator[None]:
        """Inside, a forward writes at ``places`` (B, P), absolute positions, and sees the first ``num_columns`` of the
        buffer: its memory and its shapes do not depend on how much is committed, so that it can be captured."""
        self._fixed = FixedPlaces(places, num_columns)
        try:
            yield
        finally:
            self._fixed = None

    def reserve(self, length: int) -> int:
        """Makes room for ``length`` positions; the address of the buffer, which is another one after it grew."""
        self._storage(self.buffer[0, 0, :, :, :1], length)
        return self.buffer.data_ptr()

    def set_tail(self, length: int) -> None:
        """What a captured forward wrote behind the prefixes, the tail's first ``length`` positions, is the tail."""
        for layer in self._layers:
            layer.tail_length = length

    def append(
        self, layer: int, tail: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes (B, G, P, W) of one layer after each active row's prefix and ``tail`` positions more."""
        if self._fixed is not None:
            return self._append_at(layer, self._fixed, keys, values)
        starts = [length + tail for length in self.active_lengths]
        added, end = keys.shape[-2], max(starts) + keys.shape[-2]
        # Few calls: on a small model each costs as much as what it computes.
        first_row, num_rows = self._active.start, len(starts)
        pair = self._storage(keys, end)[layer].narrow(1, first_row, num_rows)  # (2, B, G, C, W)
        if min(starts) == max(starts):
            new_keys, new_values = pair.narrow(3, starts[0], added).unbind()
            new_keys.copy_(keys)
            new_values.copy_(values)
        else:
            places = self._ragged(starts, added, keys.device)[:, None, :, None].expand_as(keys)
            pair[0].scatter_(2, places, keys)
            pair[1].scatter_(2, places, values)
        seen_keys, seen_values = pair.narrow(3, 0, end).unbind()
        return seen_keys, seen_values

    def _append_at(
        self, layer: int, fixed: FixedPlaces, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pair = self.buffer[layer][:, self._active]
        places = fixed.places[:, None, :, None].expand_as(keys)
        pair[0].scatter_(2, places, keys)
        pair[1].scatter_(2, places, values)
        return pair[0, :, :, : fixed.num_columns], pair[1, :, :, : fixed.num_columns]

    def _ragged(self, starts: list[int], added: int, device: torch.device) -> torch.Tensor:
        """(B, P) where each row's new positions go; kept for the layers that follow."""
        key = (*starts, added)
        if self._places is None or self._places[0] != key:
            first = sent(starts, device)[:, None]
            self._places = (key, first + torch.arange(added, device=device))
        return self._places[1]

    def _storage(self, like: torch.Tensor, length: int) -> torch.Tensor:
        """The buffer with room for ``length`` positions; allocated in the shape of ``like`` (B, G, P, W) at first.

        Raises:
            ValueError: where a layer's heads are not those of the first.
        """
        _, heads, _, width = like.shape
        if self._buffer is not None and (self._buffer.shape[3], self._buffer.shape[5]) != (heads, width):
            raise ValueError(f"got keys of shape {tuple(like.shape)}, wanted every layer's like the first one's")
        held = self._buffer
        if held is None or length > held.shape[4]:
            self._capacity = max(length, self._capacity if held is None else self._capacity + GROWTH)
        elif self.num_rows <= held.shape[2]:
            return held
        self._buffer = enlarged(held, (len(self._layers), 2, self.num_rows, heads, self._capacity, width), like)
        return self._buffer

    @property
    def buffer(self) -> torch.Tensor:
        """(L, 2, B, G, C, W), as a view.

        Raises:
            ValueError: where no forward has filled it yet.
        """
        if self._buffer is None:
            raise ValueError("the cache is empty: no forward has filled it yet")
        return self._buffer[:, :, : self.num_rows]

    def replace_buffer(self, buffer: torch.Tensor) -> None:
        """Takes ``buffer``, of the same shape, in place of the current one."""
        self._buffer = buffer

    def grow_like(self, other: TreeCache) -> None:
        """Takes on the capacity of ``other``, of the same shape else, if that is larger."""
        if other.buffer.shape[4] > (0 if self._buffer is None else self._buffer.shape[4]):
            self._storage(other.buffer[0, 0], other.buffer.shape[4])

    def copy(self) -> TreeCache:
        """A separate cache with the same content, tail included."""
        twin = TreeCache(len(self._layers), self._capacity, self.num_rows, self.strategy)
        twin.committed_lengths = list(self.committed_lengths)
        twin._active = self._active
        twin._buffer = None if self._buffer is None else self._buffer.clone()
        for layer, copied in zip(twin._layers, self._layers, strict=True):
            layer.tail_length = copied.tail_length
        return twin

    def at(self, row: int, places: list[int]) -> torch.Tensor:
        """A copy (L, 2, G, K, W) of the given absolute positions of one row: keys, values."""
        return self.buffer[:, :, row].index_select(3, sent(places, self.buffer.device))

    def prefix(self, layer: int, row: int, length: int) -> torch.Tensor:
        """The first ``length`` positions of one layer and row, as a view (2, G, length, W)."""
        return self.buffer[layer, :, row, :, :length]

    def committed(self, row: int) -> torch.Tensor | None:
        """All committed positions of one row, as a view (L, 2, G, length, W); None where there are none."""
        length = self.committed_lengths[row]
        return self.buffer[:, :, row, :, :length] if length else None

    def committed_since(self, row: int, start: int) -> torch.Tensor:
        """The committed positions of one row from ``start`` on, as a view (L, 2, G, K, W)."""
        return self.buffer[:, :, row, :, start : self.committed_lengths[row]]

    def branch(self) -> TreeCache:
        """The cache that a step's forwards write to, as the strategy chooses it; pass it back to the commit."""
        return self.strategy.branch(self)

    def truncate(self, row: int, length: int) -> None:
        """Keeps the first ``length`` committed positions of ``row``.

        Raises:
            ValueError: where fewer are committed.
        """
        if not 0 <= length <= self.committed_lengths[row]:
            raise ValueError(f"got length {length}, wanted 0 to {self.committed_lengths[row]}, the committed length")
        self.committed_lengths[row] = length

    def arrange_tail(self, num_layers: int, places: torch.Tensor) -> None:
        """Makes the tail of the first ``num_layers`` layers what stands at its ``places`` (B, K), in that order; the
        rest of it is dropped. For layers that were fed out of the order of the slots."""
        share = self.buffer[:num_layers]
        behind = sent(self.committed_lengths, places.device)[:, None]
        put_behind(share, self.committed_lengths, gather_places(share, places + behind))
        for layer in self._layers[:num_layers]:
            layer.tail_length = places.shape[1]

    def drop_tail(self) -> None:
        """Drops what is after the committed prefixes."""
        self.set_tail(0)

    def commit_length(self, counts: list[int]) -> None:
        """Commits the first ``counts`` positions of each active row's tail as they lie, and drops the others.

        Raises:
            ValueError: where the tail is shorter.
        """
        if not all(0 <= count <= self.tail_length for count in counts):
            raise ValueError(f"got {counts} positions to commit, wanted 0 to {self.tail_length}, the tail's length")
        self.committed_lengths[self._active] = [n + c for n, c in zip(self.active_lengths, counts, strict=True)]
        self.drop_tail()

    def commit_paths(self, branch: TreeCache, slots: list[list[int]]) -> str | None:
        """Commits the tail positions ``slots`` of each row of ``branch``, in that order, and drops the others.

        Where the strategy cannot take them as they are, everything is reordered instead.

        Returns:
            Why it fell back; None where it did not.

        Raises:
            ValueError: where a slot is not in the tail.
        """
        tail = branch.tail_length
        for path in slots:
            if any(not 0 <= slot < tail for slot in path):
                raise ValueError(f"got slots {path}, wanted each in 0..{tail - 1}, the tail")
        objection = self.strategy.objection(branch, slots)
        strategy = self.strategy if objection is None else FullReorder()
        # A row that keeps less is filled up with its first slot: that lands after its end, where nothing counts.
        most = max(map(len, slots))
        filled = [[*path, *[0] * (most - len(path))] for path in slots]
        device = branch.buffer.device
        places = sent(filled, device) + sent(self.committed_lengths, device)[:, None]
        strategy.keep(self, branch, places)
        self.committed_lengths = [n + len(path) for n, path in zip(self.committed_lengths, slots, strict=True)]
        self.drop_tail()
        return objection

    def add_rows(self, count: int) -> None:
        """Adds ``count`` empty rows behind the others."""
        self.committed_lengths += [0] * count
        self._active = slice(0, self.num_rows)

    def drop_row(self, row: int) -> None:
        """Ends ``row``: the last row takes its number."""
        last, length = self.num_rows - 1, self.committed_lengths[-1]
        if row != last and length:
            self.buffer[:, :, row, :, :length] = self.buffer[:, :, last, :, :length]
        self.committed_lengths[row] = length
        self.committed_lengths.pop()
        self._active = slice(0, last)

    def share(self, row: int, common: list[int]) -> None:
        """``row`` has the first ``common`` tokens of each row: for a cache whose rows can share what is equal."""

    def block_note(self, row: int, token_ids: list[list[int]]) -> BlockNote | None:
        """What is to be recorded of the blocks of ``row``; None: it has none."""
        return None


class InPlace:
    """Gathers the chosen positions and writes them to the tail's front; the prefix is not touched."""

    name = "in-place"

    def branch(self, cache: TreeCache) -> TreeCache:
        """The cache itself."""
        return cache

    def keep(self, cache: TreeCache, branch: TreeCache, places: torch.Tensor) -> None:
        """One gather and one write, of the kept positions alone. They overlap, so a copy is gathered first."""
        put_behind(cache.buffer, cache.committed_lengths, gather_places(branch.buffer, places))

    def objection(self, cache: TreeCache, slots: list[list[int]]) -> str | None:
        """It requires the root first, ascending slots, and tails of one length in all layers."""
        return ascending_objection(cache, slots)


class FullReorder:
    """Gathers every position that is kept, prefix and path, into a new buffer. Takes any order; the slowest."""

    name = "full-reorder"

    def branch(self, cache: TreeCache) -> TreeCache:
        """The cache itself."""
        return cache

    def keep(self, cache: TreeCache, branch: TreeCache, places: torch.Tensor) -> None:
        """An index of the whole kept sequence, row by row; what lies after a row's end is irrelevant."""
        source, lengths = branch.buffer, cache.committed_lengths
        device, count = source.device, places.shape[1]
        index = torch.arange(max(lengths) + count, device=device).repeat(len(lengths), 1)
        starts = sent(lengths, device)[:, None] + torch.arange(count, device=device)
        index.scatter_(1, starts, places)
        reordered = torch.zeros_like(source)
        reordered[:, :, :, :, : index.shape[1]] = gather_places(source, index)
        cache.replace_buffer(reordered)

    def objection(self, cache: TreeCache, slots: list[list[int]]) -> str | None:
        """None, ever."""
        return None


def ascending_objection(cache: TreeCache, slots: list[list[int]]) -> str | None:
    """Why a fast commit of ``slots`` is not to be trusted: parents precede children in every sound tree."""
    for row, path in enumerate(slots):
        if path[:1] != [0] or any(a >= b for a, b in pairwise(path)):
            return f"row {row}: slots {path} do not ascend from the root"
    tails = set(cache.layer_tails)
    return None if len(tails) == 1 else f"the layers' tails differ: {sorted(tails)}"
