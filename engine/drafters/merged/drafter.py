"""An EAGLE-3 head whose trees also hold what a lookup finds in the text.

The head drafts what is likely, the lookup what the text has said before. Each step merges both into one tree of at most
the policy's budget, equal paths being one node; where the lookup finds nothing, the tree is the head's.
"""

from __future__ import annotations

import torch
from torch import nn

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.drafters.ngram import NgramDrafter
from specscope.engine.tree.grow import DraftTree, Level
from specscope.engine.tree.merge import merge_lookup
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas import Drafter as DrafterManifest

PROPOSERS = ("eagle3", "ngram")


class MergedDrafter:
    """Proposes trees with a head and a lookup together.

    Args:
        head: grows the levels; its cache is the drafter's.
        lookup: of the same policy.
    """

    def __init__(self, head: Eagle3Drafter, lookup: NgramDrafter) -> None:
        self.head = head
        self.lookup = lookup
        self.policy: TreePolicy = head.policy
        self.feature_layers = head.feature_layers
        self.module: nn.Module = head.module

    @property
    def num_pairs(self) -> list[int]:
        """Pairs in each row's cache."""
        return self.head.num_pairs

    def kept(self, row: int) -> torch.Tensor | None:
        """The head's."""
        return self.head.kept(row)

    def begin_session(self, cache: TreeCache) -> None:
        """Both forget everything."""
        self.head.begin_session(cache)
        self.lookup.begin_session(cache)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """Both keep the first ``num_pairs`` pairs of ``row``."""
        self.head.begin_turn(row, context_ids, num_pairs)
        self.lookup.begin_turn(row, context_ids, num_pairs)

    def add_rows(self, count: int) -> None:
        """Adds ``count`` empty rows behind the others."""
        self.head.add_rows(count)
        self.lookup.add_rows(count)

    def drop_row(self, row: int) -> None:
        """The last row takes the number of ``row``."""
        self.head.drop_row(row)
        self.lookup.drop_row(row)

    def parts(self) -> dict[str, nn.Module]:
        """The head's."""
        return self.head.parts()

    def manifest(self) -> DrafterManifest:
        """Kind eagle3+ngram: the head's, with the lookup's settings."""
        head, lookup = self.head.manifest(), self.lookup.manifest()
        settings = {**(head.settings or {}), **(lookup.settings or {})}
        return head.model_copy(update={"kind": "+".join(PROPOSERS), "settings": settings})

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """Takes in each row's ``pairs``, and merges the tree of what its text proposes into the head's.

        Raises:
            ValueError: with ``generators``: a lookup has no distribution to draw from.
        """
        if generators is not None:
            raise ValueError("got generators, wanted none: a lookup draws nothing")
        lookups = self.lookup.take_in(pairs)

        def select(levels: list[Level], pending_tokens: torch.Tensor, policy: TreePolicy) -> DraftTree:
            looked = self.lookup.tree_of(lookups, pending_tokens.device)
            return merge_lookup(levels, looked, budget=policy.budget, names=PROPOSERS)

        return self.head.grow(pairs, self.policy, select=select)
