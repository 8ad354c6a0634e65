"""The teacher's KV cache: preallocated buffers a layer, a committed prefix, and a tail that a step works in.

Built on transformers' Cache interface, whose own ``crop`` changes meaning between releases. A forward appends its rows
to the tail; ``commit_length`` keeps the tail's first rows, ``commit_path`` gathers chosen ones to the tail's front.
The committed prefix is never written.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH_ROWS = 256


class KeyValueRows(NamedTuple):
    """Keys and values of some rows of one layer."""

    keys: torch.Tensor  # (B, kv heads, rows, head_dim)
    values: torch.Tensor


class TreeCacheLayer(CacheLayerMixin):
    """One layer's buffers (B, kv heads, capacity, head_dim) and how many of their rows are in use."""

    is_sliding = False
    keys: torch.Tensor  # allocated by the first update
    values: torch.Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        self.capacity = capacity
        self.length = 0  # committed rows and tail

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocates the buffers in the shape of the first keys and values."""
        self.keys = self._buffer_like(key_states, self.capacity)
        self.values = self._buffer_like(value_states, self.capacity)
        self.is_initialized = True

    @staticmethod
    def _buffer_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
        batch, heads, _, width = states.shape
        return states.new_zeros(batch, heads, capacity, width)

    def _grow(self, capacity: int) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = self._buffer_like(old, capacity)
            new[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, new)
        self.capacity = capacity

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends rows and returns all rows in use, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.capacity:
            self._grow(max(end, self.capacity + GROWTH_ROWS))
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def rows(self, start: int, end: int) -> KeyValueRows:
        """Rows ``start`` to ``end`` as views."""
        return KeyValueRows(self.keys[:, :, start:end], self.values[:, :, start:end])

    def gather(self, rows: torch.Tensor) -> KeyValueRows:
        """A copy of the given rows (R,)."""
        return KeyValueRows(self.keys.index_select(2, rows), self.values.index_select(2, rows))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Key length and offset of a forward with ``query_length`` rows."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Rows in use."""
        return self.length

    def get_max_length(self) -> int:
        """No maximum (transformers says it with -1)."""
        return -1


class TreeCache(Cache):
    """All layers, with one committed length."""

    strategy = "in-place"

    def __init__(self, num_layers: int, capacity: int) -> None:
        self.tree_layers = [TreeCacheLayer(capacity) for _ in range(num_layers)]
        super().__init__(layers=list(self.tree_layers))
        self.committed_length = 0

    @property
    def tail_length(self) -> int:
        """Rows behind the committed prefix."""
        return self.tree_layers[0].length - self.committed_length

    def truncate(self, length: int) -> None:
        """Keeps the first ``length`` committed rows and drops all behind them.

        Raises:
            ValueError: where fewer than ``length`` rows are committed.
        """
        if not 0 <= length <= self.committed_length:
            raise ValueError(f"got length {length}, wanted 0 to {self.committed_length}, the committed length")
        self._set_length(length)

    def commit_length(self, num_rows: int) -> None:
        """Commits the first ``num_rows`` rows of the tail as they lie, and drops the others.

        Raises:
            ValueError: where the tail is shorter.
        """
        if not 0 <= num_rows <= self.tail_length:
            raise ValueError(f"got {num_rows} rows to commit, wanted 0 to {self.tail_length}, the tail's length")
        self._set_length(self.committed_length + num_rows)

    def commit_path(self, slots: list[int]) -> list[int]:
        """Moves the tail's rows ``slots``, in that order, to its front, commits them and drops the others.

        Returns:
            The absolute rows that they were written to.

        Raises:
            ValueError: where a slot is not in the tail.
        """
        if any(not 0 <= slot < self.tail_length for slot in slots):
            raise ValueError(f"got slots {slots}, wanted each in 0..{self.tail_length - 1}, the tail")
        start = self.committed_length
        if slots != list(range(len(slots))):
            # Sources and destinations overlap: gather a copy first.
            sources = torch.tensor(slots, device=self.tree_layers[0].keys.device) + start
            for layer in self.tree_layers:
                gathered = layer.gather(sources)
                layer.keys[:, :, start : start + len(slots)] = gathered.keys
                layer.values[:, :, start : start + len(slots)] = gathered.values
        self._set_length(start + len(slots))
        return list(range(start, start + len(slots)))

    def _set_length(self, length: int) -> None:
        self.committed_length = length
        for layer in self.tree_layers:
            layer.length = length
