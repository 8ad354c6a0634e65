"""The teacher's KV cache: one preallocated buffer, a committed prefix, and a tail that a step works in.

Built on transformers' Cache interface, whose own ``crop`` changes meaning between releases. A forward appends its rows
to the tail; ``commit_length`` keeps the tail's first rows, ``commit_path`` gathers chosen ones to the tail's front.
The committed prefix is never written. All layers share one buffer, so that a commit is one gather and one write.

Letters: L layers, B batch, G key-value heads, R rows, W head width.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH_ROWS = 256


class TreeCacheLayer(CacheLayerMixin):
    """One layer's share of the buffer, as transformers wants to see it."""

    is_sliding = False

    def __init__(self, cache: TreeCache, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        self._cache = cache
        self._number = number
        self.length = 0  # rows in use: the committed ones and the tail

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the cache allocates for all layers at the first update."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends rows (B, G, R, W) and returns all rows in use, as views."""
        end = self.length + key_states.shape[-2]
        pair = self._cache.storage(key_states, end)[self._number]  # (2, B, G, capacity, W)
        pair[0, :, :, self.length : end] = key_states
        pair[1, :, :, self.length : end] = value_states
        self.length = end
        return pair[0, :, :, :end], pair[1, :, :, :end]

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
        self._layers = [TreeCacheLayer(self, number) for number in range(num_layers)]
        super().__init__(layers=list(self._layers))
        self._capacity = capacity
        self._buffer: torch.Tensor | None = None  # (L, 2, B, G, capacity, W): keys, values
        self.committed_length = 0

    def storage(self, like: torch.Tensor, rows: int) -> torch.Tensor:
        """The buffer with room for ``rows``; allocated in the shape of ``like`` (B, G, R, W) at the first call.

        Raises:
            ValueError: where a layer's heads are not those of the first.
        """
        batch, heads, _, width = like.shape
        if self._buffer is not None and self._buffer.shape[2:4] + self._buffer.shape[5:] != (batch, heads, width):
            raise ValueError(f"got keys of shape {tuple(like.shape)}, wanted every layer's like the first one's")
        if self._buffer is None or rows > self._buffer.shape[4]:
            self._capacity = max(rows, self._capacity if self._buffer is None else self._capacity + GROWTH_ROWS)
            grown = like.new_zeros(len(self._layers), 2, batch, heads, self._capacity, width)
            if self._buffer is not None:
                grown[..., : self._buffer.shape[4], :] = self._buffer
            self._buffer = grown
        return self._buffer

    @property
    def tail_length(self) -> int:
        """Rows behind the committed prefix."""
        return self._layers[0].length - self.committed_length

    def gather(self, rows: list[int]) -> torch.Tensor:
        """A copy (L, 2, B, G, R, W) of the given absolute rows: keys, values."""
        buffer = self._filled()
        return buffer.index_select(4, torch.tensor(rows, device=buffer.device))

    def prefix(self, layer: int, length: int) -> torch.Tensor:
        """The first ``length`` rows of one layer, as a view (2, B, G, R, W)."""
        return self._filled()[layer, ..., :length, :]

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
            self._filled()[..., start : start + len(slots), :] = self.gather([start + slot for slot in slots])
        self._set_length(start + len(slots))
        return list(range(start, start + len(slots)))

    def _filled(self) -> torch.Tensor:
        if self._buffer is None:
            raise ValueError("the cache is empty: no forward has filled it yet")
        return self._buffer

    def _set_length(self, length: int) -> None:
        self.committed_length = length
        for layer in self._layers:
            layer.length = length
