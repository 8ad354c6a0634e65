"""Tree attention in two parts: the committed keys, which every slot sees, without a mask, and the tree's with their
small one, merged by their log-sum-exps.

As in xformers' tree attention ("Efficient Speculative Decoding for Llama at Scale", arXiv 2508.08192, section on tree
attention). What is saved is the mask over the whole context, which grows with it and is read in every layer; and keys
that several query heads share are read once, because the heads of a group become rows of one head.

Letters: B batch, H heads, G key-value heads, Q rows, S keys, W head width.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import ReferenceType, ref

import torch

from specscope.engine.host import lies_on_host


class Part(NamedTuple):
    """Attention over some of the keys."""

    output: torch.Tensor  # (B, H, Q, W)
    logsumexp: torch.Tensor  # (B, H, Q, 1), float32 at least, of the scores of these keys


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """query (B, H, Q, W), key and value (B, G, S, W), mask (B or 1, 1, Q, S) additive, or None -> (B, H, Q, W).

    In one part where the keys that all rows see are fewer than the others, as in a prompt.
    """
    num_heads, group = query.shape[1], query.shape[1] // key.shape[1]
    rows = _grouped(query, group)
    if mask is None:
        return _ungrouped(_part(rows, key, value, None, scale).output, num_heads)
    split = _SPLITS.of(mask, group)
    start = split.start
    if split.seen is None:
        return _ungrouped(_part(rows, key, value, None, scale).output, num_heads)
    tree = _part(rows, key[:, :, start:], value[:, :, start:], split.seen, scale)
    if start == 0:
        return _ungrouped(tree.output, num_heads)
    if split.unseeing is not None:  # such rows weigh nothing, whatever the kernel makes of them
        tree = Part(tree.output.masked_fill(split.unseeing, 0), tree.logsumexp.masked_fill(split.unseeing, -torch.inf))
    prefix = _part(rows, key[:, :, :start], value[:, :, :start], None, scale)
    return _ungrouped(merge(prefix, tree), num_heads)


# How many parts there are, and where they meet, is decided by what the mask holds: a graph would keep the decision of
# its capture.
attention.capturable = False  # type: ignore[attr-defined]


class Split(NamedTuple):
    """Where the parts meet, and what the rows see of the second. The query heads of a group are rows of one head."""

    start: int  # of the second part
    seen: torch.Tensor | None  # (B or 1, 1, group Q, S - start) additive; None where every row sees every key
    unseeing: torch.Tensor | None  # (B or 1, 1, group Q, 1) rows that see none of these keys; None where there are none


def split_by(mask: torch.Tensor, group: int) -> Split:
    """By (B or 1, 1, Q, S) additive ``mask``: the first part ends where the first key is hidden from any row."""
    hidden = mask != 0
    some = hidden.flatten(end_dim=-2).any(dim=0)
    if not bool(some.any()):
        return Split(mask.shape[-1], None, None)
    common = int(some.int().argmax())
    start = common if common >= mask.shape[-1] - common else 0
    unseeing = hidden[..., start:].all(dim=-1, keepdim=True).repeat(1, 1, group, 1)
    return Split(start, mask[..., start:].repeat(1, 1, group, 1), unseeing if bool(unseeing.any()) else None)


class _Splits:
    """``split_by`` the mask that was asked for last: all layers of a forward are given the same."""

    def __init__(self) -> None:
        self._last: tuple[ReferenceType[torch.Tensor], int, Split] | None = None

    def of(self, mask: torch.Tensor, group: int) -> Split:
        last = self._last
        if last is not None and last[0]() is mask and last[1] == group:
            return last[2]
        split = split_by(mask, group)
        self._last = (ref(mask), group, split)
        return split


_SPLITS = _Splits()


def merge(a: Part, b: Part) -> torch.Tensor:
    """Attention over the keys of both parts, from that over each: weights exp(lse) over their sum, in float32 at least.

    A row that sees no key of a part has a log-sum-exp of -inf there, and finite output; it must see one of the other.
    """
    dtype = torch.promote_types(a.output.dtype, torch.float32)
    share = (a.logsumexp - b.logsumexp).sigmoid()
    return torch.lerp(b.output.to(dtype), a.output.to(dtype), share).to(a.output.dtype)


def _grouped(query: torch.Tensor, group: int) -> torch.Tensor:
    """(B, H, Q, W) -> (B, G, group Q, W): the query heads of a group as rows of one."""
    batch, heads, rows, width = query.shape
    return query.reshape(batch, heads // group, group * rows, width)


def _ungrouped(output: torch.Tensor, num_heads: int) -> torch.Tensor:
    batch, _, _, width = output.shape
    return output.reshape(batch, num_heads, -1, width)


def _part(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float) -> Part:
    """query (B, G, R, W), key and value (B, G, S, W), mask (B or 1, 1, R, S)."""
    if not lies_on_host(query):
        return _explicit(query, key, value, mask, scale)
    # The kernel behind torch's own scaled dot-product attention on a CPU, which also says the log-sum-exp.
    output, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=mask, scale=scale
    )
    return Part(output, logsumexp[..., None])


def _explicit(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> Part:
    """The same in single operations, for devices whose fused kernels take no mask, or say no log-sum-exp."""
    scores = (query @ key.transpose(-1, -2)).to(torch.promote_types(query.dtype, torch.float32)) * scale
    if mask is not None:
        scores = scores + mask
    logsumexp = scores.logsumexp(dim=-1, keepdim=True)
    weights = (scores - logsumexp.nan_to_num(neginf=0)).exp()  # zero in a row that sees none of these keys
    return Part(weights.to(value.dtype) @ value, logsumexp)
