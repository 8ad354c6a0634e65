"""Sections of a step from an engine's tensors, as the format has them: what adapters share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from specscope.tracer.files.given import packed_row


def best_tokens(logits: torch.Tensor, num_best: int) -> dict[str, Any]:
    """Of verify: the ``num_best`` best tokens of each slot with their logits (N, V)."""
    best = logits.topk(min(num_best, logits.shape[-1]))
    return {"top_tokens": best.indices.tolist(), "top_logits": best.values.tolist()}


def verify_numbers(logits: torch.Tensor, num_best: int) -> dict[str, Any]:
    """Of verify: the numbers of (N, V) logits, the ``num_best`` best tokens of each slot among them."""
    return {
        **best_tokens(logits, num_best),
        "logsumexp": logits.logsumexp(-1).tolist(),
        "nonfinite_slots": (~logits.isfinite().all(-1)).nonzero().flatten().tolist(),
    }


def tree_tensors(
    tokens: Sequence[int], positions: Sequence[int], seen: Sequence[Sequence[bool]], committed: int
) -> dict[str, Any]:
    """What a forward over the N slots of one tree was given: ``seen`` are N rows over the ``committed`` columns and
    those of the slots."""
    return {
        "committed_length": committed,
        "num_slots": len(tokens),
        "padded_slots": len(tokens),
        "mask_rows": [packed_row(row[committed:]) for row in seen],
        "prefix_visible": [sum(row[:committed]) for row in seen],
        "positions": list(positions),
        "token_ids": list(tokens),
        "index_tensors": {},
    }


def in_place_commit(committed: int, slots: Sequence[int], rows: Sequence[int], after: int) -> dict[str, Any]:
    """How the keys and values of ``slots`` went to ``rows`` of a cache that then holds ``after`` tokens."""
    return {
        "strategy": "in-place",
        "committed_before": committed,
        "committed_after": after,
        "source_slots": list(slots),
        "destination_rows": list(rows),
    }
