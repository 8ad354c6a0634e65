"""Sliding windows: which of the keys that a mask shows a layer may see, where the layer sees the last W positions only.

A slot of a tree sees every position up to its own exactly once: the committed prefix and its ancestors, in this order.
So the window of a slot is the last W of the keys that the mask shows it. Columns say nothing of positions there:
siblings share one, and the rows of a batch are committed to unlike lengths. The cache keeps all keys.

Letters: B rows of the batch, Q queries, S columns, W window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

#: (mask, window) -> mask; both masks (B or 1, 1, Q, S) additive.
Narrow = Callable[[torch.Tensor, int], torch.Tensor]


def narrow_mask(mask: torch.Tensor, window: int) -> torch.Tensor:
    """``mask`` (B or 1, 1, Q, S), which hides what is out of the window, too.

    Each query keeps the last ``window`` of the columns that it sees, itself among them.
    """
    seen = visible_in(mask)
    rank = seen.cumsum(dim=-1, dtype=torch.int32)  # of the visible keys, 1 for the oldest
    return hide(mask, rank <= rank[..., -1:] - window)


def visible_in(mask: torch.Tensor) -> torch.Tensor:
    """Bool of the same shape: what an additive mask, or one of booleans, shows."""
    return mask if mask.dtype == torch.bool else mask == 0


def hide(mask: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """``mask`` where ``hidden`` is not seen either."""
    return mask.masked_fill(hidden, False if mask.dtype == torch.bool else -torch.inf)


_SHARED: ContextVar[dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] | None] = ContextVar(
    "narrowed masks of one forward", default=None
)


@contextmanager
def shared_windows() -> Iterator[None]:
    """Inside, which is one forward, the layers of one window share the mask that is made for it."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def mask_within(mask: torch.Tensor, window: int, narrow: Narrow) -> torch.Tensor:
    """``mask`` as ``narrow`` makes it for ``window``; as it is where no window can end within its columns."""
    if mask.shape[-1] <= window:
        return mask
    shared = _SHARED.get()
    if shared is None:
        return narrow(mask, window)
    key = (id(mask), window)
    if key not in shared:
        shared[key] = (mask, narrow(mask, window))  # the mask is kept, so that no other gets its id
    return shared[key][1]
