"""Trees as the tensors that the verify forward takes: ids, positions, mask, each with the root row and padding.

Pure functions over a batch of rows. No index is ever negative: the root is its own parent, and padding slots hang under
the root at depth 0, see only themselves and are guarded by ``valid``.

Letters: B rows of the batch, N slots, P padded slots, D depth, T committed length, S columns of the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specscope.engine.host import sent
from specscope.engine.tree.grow import DraftTree


@dataclass(frozen=True, kw_only=True)
class TreeTensors:
    """What one verify forward is given."""

    tree_tokens: torch.Tensor  # (B, P) of the tree that the tensors were made from; what is fed must equal them
    token_ids: torch.Tensor  # (B, P)
    position_ids: torch.Tensor  # (B, P)
    parents: torch.Tensor  # (B, P) slots
    depths: torch.Tensor  # (B, P)
    valid: torch.Tensor  # (B, P) bool: a slot of the tree, not padding
    ancestors: torch.Tensor  # (B, D + 1, P) slots: level l holds the parents of level l - 1
    visible: torch.Tensor  # (B, P, P) bool: row sees column
    committed_lengths: list[int]  # T of each row
    num_slots: list[int]  # real slots of each row; the rest is padding

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        return self.token_ids.shape[0]

    @property
    def padded_slots(self) -> int:
        """Slots of the tensors."""
        return self.token_ids.shape[1]


def ancestor_table(parents: torch.Tensor, num_levels: int) -> torch.Tensor:
    """A (B, num_levels + 1, P) with A[:, 0, k] = k and A[:, l + 1, k] = parent of A[:, l, k]; the root is a fixed
    point."""
    rows = [torch.arange(parents.shape[1], device=parents.device).expand_as(parents)]
    for _ in range(num_levels):
        rows.append(parents.gather(1, rows[-1]))
    return torch.stack(rows, dim=1)


def visible_from_ancestors(ancestors: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, P, P) bool: a real slot sees its ancestors and itself, a padding slot only itself."""
    num_rows, _, num_slots = ancestors.shape
    visible = torch.zeros(num_rows, num_slots, num_slots, dtype=torch.bool, device=ancestors.device)
    visible.scatter_(2, ancestors.transpose(1, 2), True)
    visible[:, :, 0] &= valid
    return visible


def tensorize(tree: DraftTree, committed_lengths: list[int], max_depth: int, pad_to: int = 0) -> TreeTensors:
    """The tensors of ``tree`` after each row's committed tokens, padded to ``pad_to`` slots if it has fewer.

    ``max_depth`` bounds the trees' depth (the policy's), so that nothing need be read back from the device.
    """
    device = tree.tokens.device
    padding = max(0, pad_to - tree.tokens.shape[1])

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, padding)) if padding else values

    parents, depths = padded(tree.parents), padded(tree.depths)
    sizes = sent(tree.num_slots, device)
    valid = torch.arange(parents.shape[1], device=device) < sizes[:, None]
    tokens, ancestors = padded(tree.tokens), ancestor_table(parents, max_depth)
    return TreeTensors(
        tree_tokens=tokens,
        token_ids=tokens,
        position_ids=sent(committed_lengths, device)[:, None] + depths,
        parents=parents,
        depths=depths,
        valid=valid,
        ancestors=ancestors,
        visible=visible_from_ancestors(ancestors, valid),
        committed_lengths=committed_lengths,
        num_slots=tree.num_slots,
    )


def additive_mask(tensors: TreeTensors, dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, P, S), S = longest committed length + P: the mask of the verify forward. Every slot sees the committed
    prefix and at least itself, so no softmax row is empty."""
    return mask_behind(tensors.committed_lengths, tensors.visible, dtype)


def mask_behind(lengths: list[int], seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, R, S): 0 where a query sees a column, -inf elsewhere; S = longest of ``lengths`` + W.

    Every query of row b sees the first ``lengths[b]`` columns. The W columns of ``seen`` (B, R, W) bool stand right
    after those; what is after them belongs to nobody. Additive, because transformers' eager attention adds its mask.
    """
    num_rows, queries, width = seen.shape
    longest = max(lengths)
    if min(lengths) == longest:
        mask = torch.zeros((num_rows, 1, queries, longest + width), dtype=dtype, device=seen.device)
        mask[..., longest:].masked_fill_(~seen[:, None], -float("inf"))
        return mask
    whole = seen.new_zeros(num_rows, queries, longest + width)
    starts = sent(lengths, seen.device)[:, None]
    whole |= (torch.arange(longest + width, device=seen.device) < starts)[:, None]
    places = starts + torch.arange(width, device=seen.device)  # (B, W)
    whole.scatter_(2, places[:, None].expand(-1, queries, -1), seen)
    return additive(whole, dtype)[:, None]


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where ``seen``, -inf elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -float("inf"))


def causal_mask(num_new: int, committed_length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(1, 1, num_new, T + num_new): the additive mask of ``num_new`` tokens after ``committed_length``."""
    return mask_behind([committed_length], causal(1, num_new, device), dtype)


def causal(num_rows: int, length: int, device: torch.device) -> torch.Tensor:
    """(B, length, length) bool: each token sees itself and those before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(num_rows, -1, -1)
