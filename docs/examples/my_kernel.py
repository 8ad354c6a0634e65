"""Two attention kernels for docs/your-kernel.md: one that is right, and one with a bug that public kernels have had."""

from __future__ import annotations

import torch
import torch.nn.functional as F

MASKED_KEYS = 32  # the bug: keys from this one on are never masked


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """query (B, H, Q, W), key and value (B, G, S, W), mask (B or 1, 1, Q, S) additive or None -> (B, H, Q, W)."""
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)


def forgets_the_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """The same, but that every query sees all keys from ``MASKED_KEYS`` on."""
    if mask is not None:
        mask = mask.clone()
        mask[..., MASKED_KEYS:] = 0
    return attention(query, key, value, mask, scale)
