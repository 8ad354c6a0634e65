"""A stand-in for JetSpec's tree layer: its names and calls, as far as the comparison makes them, done the slow way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


@dataclass(kw_only=True)
class DraftTree:
    """Slots; the root's parent is -1."""

    token_ids: torch.Tensor
    parent_indices: torch.Tensor
    depth: torch.Tensor
    num_nodes: int
    cum_logprob: torch.Tensor | None = None


class Accepted(NamedTuple):
    """A walk from the root."""

    path: list[int]  # the root included
    length: int  # without it
    correction: int


class Builder:
    """Expands the best node that is left, again and again."""

    def choose(self, scores: list[float], open_slots: list[int]) -> int:
        """Which slot is expanded next."""
        return max(open_slots, key=lambda slot: scores[slot])

    def build(
        self,
        root_token: int,
        draft_logits: torch.Tensor,
        block_size: int,
        tree_width: int,
        budget: int,
        device: torch.device,
    ) -> DraftTree:
        """The tree of ``budget`` slots at most, below logits (1, D, V)."""
        assert draft_logits.shape[:2] == (1, block_size - 1)
        ranked = [
            sorted(enumerate(row), key=lambda entry: -entry[1]) for row in draft_logits[0].log_softmax(-1).tolist()
        ]
        tokens, parents, depths, scores, open_slots = [root_token], [-1], [0], [0.0], [0]
        while open_slots and len(tokens) < budget:
            slot = self.choose(scores, open_slots)
            open_slots.remove(slot)
            if depths[slot] == len(ranked):
                continue
            for token, logprob in ranked[depths[slot]][: min(tree_width, budget - len(tokens))]:
                open_slots.append(len(tokens))
                tokens.append(token)
                parents.append(slot)
                depths.append(depths[slot] + 1)
                scores.append(scores[slot] + logprob)
        return DraftTree(
            token_ids=torch.tensor(tokens, device=device),
            parent_indices=torch.tensor(parents),
            depth=torch.tensor(depths),
            num_nodes=len(tokens),
            cum_logprob=torch.tensor(scores),
        )


class Layer:
    """What stands in for the module."""

    DraftTree = DraftTree

    def get_algorithm(self, name: str) -> Builder:
        assert name == "accum_logp"
        return Builder()

    def build_ancestor_matrix(self, tree: Any) -> torch.Tensor:
        seen = torch.eye(tree.num_nodes, dtype=torch.bool)
        for slot in range(tree.num_nodes):
            above = int(tree.parent_indices[slot])
            while above >= 0:
                seen[slot, above] = True
                above = int(tree.parent_indices[above])
        return seen

    def tree_accept(self, tree: Any, target_logits: torch.Tensor) -> Accepted:
        return self.walk(tree.token_ids, target_logits[0].argmax(-1), tree.parent_indices)

    def gpu_tree_accept(
        self, tokens: torch.Tensor, targets: torch.Tensor, parents: torch.Tensor, depths: torch.Tensor
    ) -> tuple[torch.Tensor, int, torch.Tensor]:
        path, length, correction = self.walk(tokens, targets, parents)
        assert depths[path[-1]] == length
        return torch.tensor(path), length, torch.tensor(correction)

    def walk(self, tokens: torch.Tensor, targets: torch.Tensor, parents: torch.Tensor) -> Accepted:
        """Down from the root, from child to child that the teacher wants."""
        path = [0]
        while True:
            wanted = int(targets[path[-1]])
            below = [slot for slot in range(len(tokens)) if parents[slot] == path[-1] and tokens[slot] == wanted]
            if not below:
                return Accepted(path, len(path) - 1, wanted)
            path.append(below[0])
