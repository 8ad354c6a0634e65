"""Custody of a cache: what a step leaves in the committed prefix is what the next one must find.

A *position sum* is a digest that adds up: every 32-bit word of a position is multiplied by a constant of its place, the
position's total by a constant of the position, and all is added modulo 2^64. So the digest after a commit is the digest
before it plus that of the positions written, and one look at the cache in a step is enough. It is computed where the
cache lies, and stays there until somebody reads it: nothing here waits for a device.

What it cannot find: it is no cryptography, and anyone who knows the constants can make two caches with equal sums. What
goes wrong by itself (bits flipped, positions, layers or keys and values exchanged, rows zeroed, scaled, shifted, stale)
would have to hit one sum in 2^33 where only signs change, which weigh 2^31, and one in more where lower bits do.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.host import lies_on_host

#: Words of each size; the widest that fits a head is taken. Two 32-bit words in one of 64 bits would leave the sign of
#: every second float32 at the top, where an even number of flips cancels out.
_WORDS = {4: torch.int32, 2: torch.int16, 1: torch.uint8}


def layer_sums(values: torch.Tensor, start: int = 0) -> torch.Tensor:
    """The position sum of each layer.

    Args:
        values: (L, 2, G, K, W) keys and values at K consecutive positions.
        start: the first of these positions.

    Returns:
        (L,) int64 where the values lie, modulo 2^64.
    """
    if not values.numel():
        return torch.zeros(values.shape[0], dtype=torch.int64, device=values.device)
    words = values.view(_word_type(values.element_size(), values.shape[-1]))
    _, two, heads, count, width = words.shape
    end = start + count
    length = -(-end // _GRAIN) * _GRAIN
    if lies_on_host(values):
        table = _table(two * heads, width, length)[:, start:end].reshape(two, heads, count, width)
        return torch.from_numpy(np.einsum("lkgpw,kgpw->l", words.numpy(), table))
    weights = _table_on(values.device, two * heads, width, length)[:, start:end].reshape(two, heads, count, width)
    return torch.stack([(layer * weights).sum() for layer in words])


def as_digests(sums: torch.Tensor) -> list[str]:
    """(L,) as the trace writes them: 16 hexadecimal digits each. They add up by ``+``."""
    return [f"{total % 2**64:016x}" for total in sums.tolist()]


def as_digest(sums: torch.Tensor) -> str:
    """All layers in one, which adds up as well."""
    weights = _layer_constants(len(sums))
    return f"{sum(total * weight for total, weight in zip(sums.tolist(), weights, strict=True)) % 2**64:016x}"


_GRAIN = 256  # positions by which a table grows


@lru_cache(maxsize=8)
def _word_type(element_bytes: int, width: int) -> torch.dtype:
    return next(word for size, word in _WORDS.items() if element_bytes * width % size == 0)


@lru_cache(maxsize=8)
def _layer_constants(num_layers: int) -> list[int]:
    constants: list[int] = _constants(num_layers, salt=2).tolist()
    return constants


@lru_cache(maxsize=8)
def _table(heads: int, width: int, length: int) -> NDArray[np.int64]:
    """(heads, length, width) int64: the constant of each word of each position."""
    places = _constants(heads * width, salt=0).reshape(heads, 1, width)
    positions = _constants(length, salt=1)
    table: NDArray[np.int64] = places * positions[None, :, None]
    return table


@lru_cache(maxsize=8)
def _table_on(device: torch.device, heads: int, width: int, length: int) -> torch.Tensor:
    """The same on a device, copied there once."""
    return torch.from_numpy(_table(heads, width, length)).to(device)


def _constants(count: int, *, salt: int) -> NDArray[np.int64]:
    """(count,) odd numbers of 64 bits, as int64: the outputs of splitmix64 (Steele, Lea and Flood 2014, as published by
    Vigna), seeded with ``salt``."""
    with np.errstate(over="ignore"):
        state = np.uint64(salt << 32) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.int64] = ((state ^ (state >> np.uint64(31))) | np.uint64(1)).view(np.int64)
        return mixed
