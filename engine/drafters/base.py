"""What a drafter is to the loop: it takes in what was committed, and proposes a tree. Knows no file format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from specscope.engine.tree import NO_TREE, DraftTree, Level, TreePolicy, root_only
from specscope.schemas import Drafter as DrafterManifest


@dataclass(frozen=True)
class DraftPairs:
    """What the drafter is fed before it proposes: (features of token j, token j + 1), in order."""

    source_rows: list[int]  # rows of the last teacher forward that the features were read from
    features: torch.Tensor  # (R, 3 x teacher hidden), or (R, 0) where the drafter wants none
    tokens: torch.Tensor  # (R,) the last is the pending token


@dataclass(frozen=True)
class Draft:
    """A proposed tree and how it came about."""

    tree: DraftTree
    pairs: DraftPairs
    positions: list[int]  # drafter positions of the pairs
    levels: list[Level]
    kv_before: int  # pairs in the drafter's cache before these were fed
    kv_after: int  # and after


class Drafter(Protocol):
    """Proposes trees. Keeps a cache of its own over the committed pairs of one sequence."""

    policy: TreePolicy

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """The transformers hidden_states indices that it wants, low to high."""

    @property
    def num_pairs(self) -> int:
        """Pairs in the drafter's cache."""

    def truncate(self, num_pairs: int) -> None:
        """Keeps the first ``num_pairs`` pairs."""

    def propose(self, pairs: DraftPairs) -> Draft:
        """Takes in ``pairs`` and proposes a tree under the last of their tokens."""

    def manifest(self) -> DrafterManifest:
        """What the trace says of it."""


class NoDrafter:
    """Teacher-only decoding: every tree is a root."""

    policy = NO_TREE
    feature_layers: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._num_pairs = 0

    @property
    def num_pairs(self) -> int:
        """Pairs taken in; nothing is kept of them."""
        return self._num_pairs

    def truncate(self, num_pairs: int) -> None:
        """Forgets all but the first ``num_pairs``."""
        self._num_pairs = num_pairs

    def propose(self, pairs: DraftPairs) -> Draft:
        """The root alone."""
        before = self._num_pairs
        self._num_pairs += pairs.tokens.numel()
        positions = list(range(before, self._num_pairs))
        return Draft(root_only(pairs.tokens[-1]), pairs, positions, [], before, self._num_pairs)

    def manifest(self) -> DrafterManifest:
        """Kind none."""
        return DrafterManifest(kind="none")
