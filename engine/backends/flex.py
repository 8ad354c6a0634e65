"""FlexAttention by a tree's mask: what is added to a score is looked up where the kernel makes it.

Torch compiles it for the device, for lengths that change only once; on a CPU it runs as written, which is slow and says
what is computed. It has not been run compiled on a GPU: whether it is faster there than ``fused``,
``python -m benchmarks.attention --device cuda --kernel flex`` tells.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import flex_attention

from specscope.engine.host import lies_on_host


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """query (B, H, Q, W), key and value (B, G, S, W), mask (B or 1, 1, Q, S) additive, or None -> (B, H, Q, W)."""
    attend = _as_written if lies_on_host(query) else _compiled()
    output: torch.Tensor = attend(
        query,
        key,
        value,
        score_mod=None if mask is None else _adding(mask.expand(query.shape[0], -1, -1, -1)),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output


# A graph's capture must not meet a first compilation, and a longer prefix may be one.
attention.capturable = False  # type: ignore[attr-defined]


def _adding(mask: torch.Tensor) -> Callable[..., torch.Tensor]:
    def add(
        score: torch.Tensor, row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        return score + mask[row, 0, query, key]

    return add


def _as_written(*arguments: Any, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return flex_attention(*arguments, **settings)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=True)
