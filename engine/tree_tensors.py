"""A tree as the tensors that the verify forward takes: ids, positions, mask, each with the root row and padding.

Pure functions. No index is ever negative: the root is its own parent, and padding slots hang under the root, see only
themselves and are guarded by ``num_slots``.

Letters: N slots, P padded slots, D depth, T committed length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specscope.engine.tree import DraftTree


@dataclass(frozen=True)
class TreeTensors:
    """What one verify forward is given."""

    token_ids: torch.Tensor  # (P,)
    position_ids: torch.Tensor  # (P,)
    parents: torch.Tensor  # (P,) slots
    depths: torch.Tensor  # (P,)
    ancestors: torch.Tensor  # (D + 1, P) slots: row l is the parent of row l - 1
    visible: torch.Tensor  # (P, P) bool: row sees column
    committed_length: int
    num_slots: int  # real slots; the rest is padding

    @property
    def padded_slots(self) -> int:
        """Rows of the tensors."""
        return self.token_ids.numel()


def ancestor_table(parents: torch.Tensor, num_levels: int) -> torch.Tensor:
    """A (num_levels + 1, P) with A[0, k] = k and A[l + 1, k] = parent of A[l, k]; the root is a fixed point."""
    rows = [torch.arange(parents.numel(), device=parents.device)]
    for _ in range(num_levels):
        rows.append(parents[rows[-1]])
    return torch.stack(rows)


def visible_from_ancestors(ancestors: torch.Tensor, num_slots: int) -> torch.Tensor:
    """(P, P) bool: a real row sees its ancestors and itself, a padding row itself alone."""
    num_rows = ancestors.shape[1]
    visible = torch.zeros(num_rows, num_rows, dtype=torch.bool, device=ancestors.device)
    visible.scatter_(1, ancestors.T, True)
    if num_slots < num_rows:
        visible[num_slots:, 0] = False
    return visible


def tensorize(tree: DraftTree, committed_length: int, max_depth: int, pad_to: int = 0) -> TreeTensors:
    """The tensors of ``tree`` behind ``committed_length`` tokens, padded to ``pad_to`` rows if it has fewer.

    ``max_depth`` bounds the tree's depth (the policy's), so that nothing need be read back from the device.
    """
    num_slots = tree.num_slots
    padding = max(0, pad_to - num_slots)

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, values.new_zeros(padding)]) if padding else values

    parents, depths = padded(tree.parents), padded(tree.depths)
    ancestors = ancestor_table(parents, max_depth)
    return TreeTensors(
        token_ids=padded(tree.tokens),
        position_ids=committed_length + depths,
        parents=parents,
        depths=depths,
        ancestors=ancestors,
        visible=visible_from_ancestors(ancestors, num_slots),
        committed_length=committed_length,
        num_slots=num_slots,
    )


def additive_mask(tensors: TreeTensors, dtype: torch.dtype) -> torch.Tensor:
    """(1, 1, P, T + P): 0 where a row sees a column, -inf elsewhere. Every row sees the committed prefix and at least
    itself, so no softmax row is empty. Additive, because transformers' eager attention adds its mask."""
    mask = torch.zeros(
        tensors.padded_slots,
        tensors.committed_length + tensors.padded_slots,
        dtype=dtype,
        device=tensors.visible.device,
    )
    mask[:, tensors.committed_length :].masked_fill_(~tensors.visible, -float("inf"))
    return mask[None, None]


def causal_mask(num_new: int, committed_length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(1, 1, num_new, T + num_new): the additive mask of ``num_new`` tokens behind ``committed_length``."""
    columns = torch.arange(committed_length + num_new, device=device)
    rows = torch.arange(num_new, device=device)[:, None] + committed_length
    mask = torch.zeros(num_new, committed_length + num_new, dtype=dtype, device=device)
    return mask.masked_fill_(columns > rows, -float("inf"))[None, None]
