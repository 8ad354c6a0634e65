"""Which drafted nodes are accepted: pure functions of trees and the teacher's verdict on them, for all rows at once.

Nothing here waits for the device, and no coin is drawn here: the caller brings them, one per slot and one per row, so
that the draws of a step do not depend on what it accepts. The rules that sample are in ``sampling``.

Letters: B rows of the batch, P padded slots, D depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specscope.engine.tree.tensors import TreeTensors
from specscope.schemas.manifest import RuleName


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What a sampling rule weighed, slot by slot; entries of the root and of padding mean nothing."""

    target_probs: torch.Tensor  # (B, P) of the slot's token, in the teacher's distribution at its parent
    draft_probs: torch.Tensor  # (B, P) in the drafter's; 1 where the token was not drawn
    # (B, P) of accepting it, given that its elder siblings were rejected; typical: what its target_probs has to exceed
    thresholds: torch.Tensor
    coins: torch.Tensor | None  # (B, P); None where the rule draws none
    bonus_coins: torch.Tensor  # (B,)
    bonus_low: torch.Tensor  # (B,) cumulative residual probability before the bonus token
    bonus_high: torch.Tensor  # (B,) the same, with it
    residuals: torch.Tensor  # (B, V) the distributions that the bonus tokens were drawn from
    masses: torch.Tensor | None = None  # (B, P) rule block: what of each slot's distribution its draft leaves over


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The outcome of a step."""

    rule: RuleName
    lengths: torch.Tensor  # (B,) accepted nodes; excludes root and bonus
    paths: torch.Tensor  # (B, D) accepted slots in order, without the root; 0 after a row's length
    bonus_slots: torch.Tensor  # (B,) the last accepted slot, or the root
    bonus_tokens: torch.Tensor  # (B,) the next pending tokens
    accepted: torch.Tensor  # (B, P) bool: chosen among its siblings, whatever became of its parent
    trials: Trials | None = None


class Walk:
    """Where each row's walk from the root ends, given which node is chosen among its siblings."""

    def __init__(self, tree: TreeTensors, chosen: torch.Tensor) -> None:
        """``chosen`` (B, P) bool marks at most one child of each node; the root and padding are disregarded."""
        reached = (chosen & tree.valid).index_fill(1, torch.zeros(1, dtype=torch.int64, device=chosen.device), True)
        on_path = reached[:, None].expand_as(tree.ancestors).gather(2, tree.ancestors).all(dim=1) & tree.valid
        self.last_slots = torch.where(on_path, tree.depths, -1).argmax(dim=1)  # (B,)
        self.lengths = tree.depths.gather(1, self.last_slots[:, None])[:, 0]
        # The ancestor table, read from the last slot upwards, is the path backwards: turn it round.
        depth = tree.ancestors.shape[1] - 1
        upwards = tree.ancestors.gather(2, self.last_slots[:, None, None].expand(-1, depth + 1, 1))[:, :, 0]
        steps = (self.lengths[:, None] - 1 - torch.arange(depth, device=chosen.device)).clamp(min=0)
        behind = torch.arange(depth, device=chosen.device) >= self.lengths[:, None]
        self.paths = upwards.gather(1, steps).masked_fill(behind, 0)  # (B, D)


def elder_siblings(tree: TreeTensors) -> torch.Tensor:
    """(B, P, P) bool: column is a sibling of row in an earlier slot. The root and padding have none and are none."""
    real = tree.valid & (torch.arange(tree.padded_slots, device=tree.valid.device) > 0)
    same_parent = tree.parents[:, :, None] == tree.parents[:, None, :]
    return (same_parent & real[:, :, None] & real[:, None, :]).tril(-1)


def eldest_only(tree: TreeTensors, wanted: torch.Tensor) -> torch.Tensor:
    """``wanted`` (B, P) bool, less those with an earlier sibling that is wanted too: at most one child of each node."""
    return wanted & ~(elder_siblings(tree) & wanted[:, None, :]).any(dim=2)


def accept_greedy(tree: TreeTensors, argmax: torch.Tensor) -> Acceptance:
    """From the root follow the child that equals the teacher's argmax (B, P), until there is none.

    Equals ``tracer.walk.greedy_walk`` row by row; among siblings with equal tokens the lowest slot counts.
    """
    chosen = eldest_only(tree, tree.token_ids == argmax.gather(1, tree.parents))
    walk = Walk(tree, chosen)
    bonus = argmax.gather(1, walk.last_slots[:, None])[:, 0]
    return Acceptance(
        rule="greedy",
        lengths=walk.lengths,
        paths=walk.paths,
        bonus_slots=walk.last_slots,
        bonus_tokens=bonus,
        accepted=chosen,
    )
