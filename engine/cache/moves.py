"""How positions are moved inside a cache's buffer. Pure functions on tensors.

Letters: L layers, B rows of the batch, G key-value heads, C capacity, K positions, W head width.
"""

from __future__ import annotations

import torch
from torch import nn

from specscope.engine.host import sent


def filled(states: torch.Tensor, width: int) -> torch.Tensor:
    """``states`` with zeros after its last dimension, up to ``width``; as it is where it is that wide."""
    return nn.functional.pad(states, (0, max(0, width - states.shape[-1])))


def gather_places(buffer: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """A copy (L, 2, B, G, K, W) of what stands at ``places`` (B, K) of ``buffer`` (L, 2, B, G, C, W)."""
    if len(places) == 1:
        return buffer.index_select(4, places[0])
    layers, two, rows, heads, _, width = buffer.shape
    index = places[None, None, :, None, :, None].expand((layers, two, rows, heads, -1, width))
    return buffer.gather(4, index)


def put_behind(buffer: torch.Tensor, lengths: list[int], kept: torch.Tensor) -> None:
    """Writes ``kept`` (L, 2, B, G, K, W) into ``buffer``, right after each row's ``lengths``."""
    count = kept.shape[4]
    if min(lengths) == max(lengths):
        buffer[:, :, :, :, lengths[0] : lengths[0] + count] = kept
        return
    starts = sent(lengths, buffer.device)[:, None] + torch.arange(count, device=buffer.device)
    buffer.scatter_(4, starts[None, None, :, None, :, None].expand_as(kept), kept)


def enlarged(held: torch.Tensor | None, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """A buffer of ``shape`` (L, 2, B, G, C, W), and else like ``like``, with what ``held`` has of its rows, zeros after
    it. It has at least the capacity of ``held``, and may have more rows or fewer."""
    larger = like.new_zeros(shape)
    if held is not None:
        rows = min(larger.shape[2], held.shape[2])
        larger[:, :, :rows, :, : held.shape[4]] = held[:, :, :rows]
    return larger
