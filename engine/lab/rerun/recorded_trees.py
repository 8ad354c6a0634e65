"""A drafter that is given recorded trees, so that a step runs on the very tree that it ran on when it was recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.rows import RowList
from specscope.engine.drafters.base import Draft, Drafter, DrafterProxy, DraftPairs
from specscope.engine.tree.grow import DraftTree, Proposers
from specscope.schemas import TreeSection


def trees_of(sections: list[TreeSection], device: torch.device) -> DraftTree:
    """Recorded trees, one per row, as a drafter would hand them out: padded to the widest, with the root's token.

    Raises:
        ValueError, TypeError, IndexError: where a section does not fit itself.
    """
    sizes = [len(section.tokens) for section in sections]
    roots = [section.tokens[0] for section in sections]

    def tensor(rows: list[Any], dtype: torch.dtype, fills: list[int] | None = None) -> torch.Tensor:
        padding = fills or [0] * len(rows)
        padded = [row + [fill] * (max(sizes) - len(row)) for row, fill in zip(rows, padding, strict=True)]
        return torch.tensor(padded, dtype=dtype, device=device)

    return DraftTree(
        tokens=tensor([s.tokens for s in sections], torch.int64, roots),
        parents=tensor([s.parents for s in sections], torch.int64),
        depths=tensor([s.depths for s in sections], torch.int64),
        logprobs=tensor([s.logprobs or [0.0] * len(s.tokens) for s in sections], torch.float32),
        scores=tensor([s.scores or [0.0] * len(s.tokens) for s in sections], torch.float32),
        num_slots=sizes,
        proposers=_proposers_of(sections, tensor),
    )


def _proposers_of(
    sections: list[TreeSection], tensor: Callable[[list[Any], torch.dtype], torch.Tensor]
) -> Proposers | None:
    """Who proposed which slot, where every section says so; ``tensor`` pads rows."""
    recorded = [section.proposed_by for section in sections]
    if any(names is None for names in recorded):
        return None
    slots = [[names.split("+") if names else [] for names in row or []] for row in recorded]
    # A slot with more names than one has them in order.
    named = sorted((slot for row in slots for slot in row), key=len, reverse=True)
    names = tuple(dict.fromkeys(name for slot in named for name in slot))
    bits = [[sum(1 << names.index(name) for name in set(slot)) for slot in row] for row in slots]
    return Proposers(names=names, bits=tensor(bits, torch.int64))


class FedPairs(NamedTuple):
    """The pairs that a drafter holds of one row, on the host."""

    features: torch.Tensor | None  # (R, F); None before the first
    tokens: list[int]

    def first(self, count: int) -> FedPairs:
        """The first ``count``."""
        return FedPairs(None if self.features is None else self.features[:count], self.tokens[:count])

    def and_then(self, pairs: DraftPairs) -> FedPairs:
        """Followed by ``pairs``."""
        added = pairs.features.cpu()
        features = added if self.features is None else torch.cat([self.features, added])
        return FedPairs(features, [*self.tokens, *pairs.token_list])


NOTHING_FED = FedPairs(None, [])


class RecordedTrees(DrafterProxy):
    """A drafter that does its work, and is then given the recorded trees where it found others.

    Args:
        inner: the drafter that does the work.
        keep_fed: whether to keep everything that it is fed.
    """

    def __init__(self, inner: Drafter, *, keep_fed: bool = False) -> None:
        super().__init__(inner)
        self._keep_fed = keep_fed
        self.wanted: list[TreeSection] | None = None  # of the next step, one per row; None leaves the drafter's
        self.keep_shared = True  # whether a tree that it found itself keeps the layers that were run for it
        self.replaced: list[bool] = []  # per row: whether the last tree was another one
        self.own_tree: DraftTree | None = None  # the last that the drafter found itself
        self.fed: RowList[FedPairs] = RowList()  # per row: all that the drafter was fed, where it is kept

    def begin_session(self, cache: TreeCache) -> None:
        """Hands it on."""
        self.fed = RowList([NOTHING_FED] * cache.num_rows)
        self.inner.begin_session(cache)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """Hands it on."""
        self.fed[row] = self.fed[row].first(num_pairs)
        self.inner.begin_turn(row, context_ids, num_pairs)

    def add_rows(self, count: int) -> None:
        """Hands it on."""
        self.fed += [NOTHING_FED] * count
        self.inner.add_rows(count)

    def drop_row(self, row: int) -> None:
        """Hands it on."""
        self.fed.drop_row(row)
        self.inner.drop_row(row)

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """The inner drafter's draft, with the recorded trees."""
        if self._keep_fed:
            self.fed = RowList(held.and_then(added) for held, added in zip(self.fed, pairs, strict=True))
        draft = self.inner.propose(pairs, branch, generators)
        self.own_tree = draft.tree
        if self.wanted is None:
            return draft
        self.replaced = [_is_other(draft.tree, row, wanted) for row, wanted in enumerate(self.wanted)]
        if not any(self.replaced) and (self.keep_shared or draft.shared is None):
            return draft
        branch.drop_tail()  # what layers were shared, they were run on the drafter's own trees
        if not any(self.replaced):
            return replace(draft, shared=None)
        tree = trees_of(self.wanted, draft.tree.tokens.device)
        return replace(draft, tree=tree, shared=None, child_probs=_moved_probs(draft, tree))


def _is_other(tree: DraftTree, row: int, wanted: TreeSection) -> bool:
    count = tree.num_slots[row]
    drafted = [values[row, :count].tolist() for values in (tree.tokens, tree.parents, tree.depths)]
    return drafted != [wanted.tokens, wanted.parents, wanted.depths]


def _moved_probs(draft: Draft, tree: DraftTree) -> torch.Tensor | None:
    """(B, N, V) what each slot's children were drawn from, where the drafter's own tree has the same node; zeros, as of
    children that cannot have been drawn, elsewhere."""
    if draft.child_probs is None:
        return None
    rows, width = tree.tokens.shape
    moved = draft.child_probs.new_zeros(rows, width, draft.child_probs.shape[2])
    for row in range(rows):
        slots = {path: slot for slot, path in reversed(list(enumerate(_token_paths(draft.tree, row))))}
        for slot, path in enumerate(_token_paths(tree, row)):
            if path is not None and path in slots:
                moved[row, slot] = draft.child_probs[row, slots[path]]
    return moved


def _token_paths(tree: DraftTree, row: int) -> list[tuple[int, ...] | None]:
    """Per slot of a row, the tokens from below the root to it; None where its parents do not lead to the root, as
    in the tree of a step that failed for that very reason."""
    paths: list[tuple[int, ...] | None] = [()]
    tokens, parents = tree.tokens[row].tolist(), tree.parents[row].tolist()
    for slot in range(1, tree.num_slots[row]):
        above = paths[parents[slot]] if 0 <= parents[slot] < slot else None
        paths.append(None if above is None else (*above, tokens[slot]))
    return paths
