"""Merging what a lookup proposes into a drafter's tree, as pure functions on small tensors, for all rows at once.

Both proposals are tries under the same root, and equal paths are one node. A node that both propose has the better of
its two scores: neither score rises along a path, so the better one does not either, and the best nodes of all hold
their parents. Nothing here waits for the device.

Letters: B rows of the batch, C candidates of the levels, T looked-up nodes, M nodes of the tree, N = M + 1 slots.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from specscope.engine.tree.grow import (
    Candidates,
    DraftTree,
    Level,
    Proposers,
    candidates_in,
    stable_topk,
    tree_of_candidates,
)

BY_LEVELS = 1  # the bit of what the levels propose
BY_LOOKUP = 2  # the bit of what was looked up


class Union(NamedTuple):
    """The candidates of the levels, then all looked-up nodes; one that is among the former is never selected."""

    candidates: Candidates  # (B, C + T)
    proposed_by: torch.Tensor  # (B, C + T) bits


def merge_lookup(levels: list[Level], looked: DraftTree, budget: int, names: tuple[str, str]) -> DraftTree:
    """The best ``budget`` nodes of the ``levels`` and of what was ``looked`` up, under the roots of the latter.

    A tree has as many nodes as the levels by themselves would give it, so that all rows have the same number.

    Args:
        levels: what a drafter proposed, at least one level; no row proposes a token twice.
        looked: trees in slots (B, T + 1), scores not rising along a path, nodes ordered by depth.
        budget: nodes at most.
        names: of the two drafters, that of the levels first.
    """
    union = union_of(levels, looked)
    size = min(budget, union.candidates.scores.shape[1] - looked.tokens.shape[1] + 1)
    selected = stable_topk(union.candidates.scores, size).sort().values
    tree = tree_of_candidates(union.candidates, selected, looked.tokens[:, 0])
    bits = torch.nn.functional.pad(union.proposed_by.gather(1, selected), (1, 0))
    above = tree.scores.gather(1, tree.parents)
    return replace(
        tree,
        # Where both are -inf, so is the log-probability.
        logprobs=torch.where(tree.scores.isneginf(), tree.scores, tree.scores - above),
        proposers=Proposers(names=names, bits=bits),
    )


def union_of(levels: list[Level], looked: DraftTree) -> Union:
    """Both proposals, with the better score where they meet."""
    proposed = candidates_in(levels)
    same = same_candidates(levels, looked)  # (B, T + 1)
    count, tokens = proposed.tokens.shape[1], looked.tokens[:, 1:]
    is_new = (same[:, 1:] == 0) & (looked.depths[:, 1:] > 0)
    scores = torch.nn.functional.pad(proposed.scores, (1, 0))  # column 0 takes what has no candidate
    raised = scores.scatter_reduce(1, same, looked.scores, "amax")[:, 1:]
    is_met = torch.zeros_like(scores, dtype=torch.int64).scatter(1, same, BY_LOOKUP)[:, 1:]
    # A looked-up node's own number, plus 1, is that of its candidate, or comes after all candidates.
    slots = torch.arange(looked.tokens.shape[1], device=tokens.device)
    numbers = torch.where((same > 0) | (slots == 0), same, count + slots)
    return Union(
        Candidates(
            tokens=torch.cat([proposed.tokens, tokens], dim=1),
            parents=torch.cat([proposed.parents, numbers.gather(1, looked.parents[:, 1:])], dim=1),
            depths=torch.cat([proposed.depths, looked.depths[:, 1:]], dim=1),
            logprobs=torch.cat([proposed.logprobs, looked.logprobs[:, 1:]], dim=1),
            scores=torch.cat([raised, looked.scores[:, 1:].masked_fill(~is_new, -float("inf"))], dim=1),
        ),
        torch.cat([is_met + BY_LEVELS, torch.full_like(tokens, BY_LOOKUP)], dim=1),
    )


def same_candidates(levels: list[Level], looked: DraftTree) -> torch.Tensor:
    """(B, T + 1) per looked-up slot, the flat number + 1 of the candidate with the same path; 0 where there is none."""
    numbers = torch.zeros_like(looked.tokens)
    before = 0  # candidates of the levels before
    for depth, level in enumerate(levels, 1):
        tokens = level.tokens.flatten(1)
        parents = level.parents.repeat_interleave(level.tokens.shape[2], dim=1)
        above = numbers.gather(1, looked.parents)
        is_here = (looked.depths == depth) & ((above > 0) | (looked.parents == 0))
        same = (looked.tokens[:, :, None] == tokens[:, None]) & (above[:, :, None] == parents[:, None])
        same &= is_here[:, :, None]
        place = same.to(torch.uint8).argmax(dim=2)
        numbers = torch.where(same.any(dim=2), place + before + 1, numbers)
        before += tokens.shape[1]
    return numbers
