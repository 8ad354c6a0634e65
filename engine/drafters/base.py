"""What a drafter is to the loop: it takes in what was committed, and proposes trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.rows import RowList
from specscope.engine.tree.grow import DraftTree, Level, root_only
from specscope.engine.tree.policy import NO_TREE, TreePolicy
from specscope.schemas import Drafter as DrafterManifest


class PathGuide(Protocol):
    """What a row's grammar allows under its pending token."""

    def allowed_after(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        """(V,) the teacher's tokens that may follow ``path``; None where the path is forbidden, or nothing may."""


@dataclass(frozen=True)
class DraftPairs:
    """What the drafter is fed for one row before it proposes: (features of token j, token j + 1), in order."""

    source_rows: list[int]  # rows of the last teacher forward that the features were read from
    features: torch.Tensor  # (R, 3 x teacher hidden), or (R, 0) where the drafter reads none
    tokens: torch.Tensor  # (R,) the last is the pending token
    token_list: list[int]  # the same, on the host
    guide: PathGuide | None = field(
        default=None, kw_only=True
    )  # by which proposals are left out; None: whatever is likely is proposed


@dataclass(frozen=True)
class SharedLayers:
    """What a drafter that runs the teacher's own first layers hands on, so that they are not run twice."""

    num_layers: int
    hidden: torch.Tensor  # (B, N, H) of every slot, after those layers; their cache tails hold the slots in order


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Proposed trees and how they came about."""

    tree: DraftTree
    pairs: list[DraftPairs]  # a row each
    levels: list[Level] | None  # None where the drafter looks whole paths up
    num_candidates: list[int]
    kv_before: list[int]  # pairs in the drafter's cache before these were fed
    kv_after: list[int]  # and after
    child_probs: torch.Tensor | None = None  # (B, N, V) what each slot's children were drawn from
    shared: SharedLayers | None = None
    positions: list[torch.Tensor] | None = None  # (R,) a row, that the pairs were rotated by; None: their indices


class Drafter(Protocol):
    """Proposes trees for the rows of one session. Keeps its own cache over the committed pairs of each."""

    @property
    def policy(self) -> TreePolicy:
        """How large its trees are."""

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """The transformers hidden_states indices that it reads, low to high."""

    @property
    def num_pairs(self) -> list[int]:
        """Pairs in each row's cache."""

    @property
    def module(self) -> torch.nn.Module | None:
        """What was loaded for it; None where it has no weights."""

    def kept(self, row: int) -> torch.Tensor | None:
        """The keys and values of the pairs in the cache of ``row``; None where it keeps none, or none yet."""

    def begin_session(self, cache: TreeCache) -> None:
        """Forgets everything and makes room for the rows of ``cache``, the teacher's."""

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """A turn after ``context_ids`` begins in ``row``; the first ``num_pairs`` pairs are known and kept."""

    def add_rows(self, count: int) -> None:
        """Adds ``count`` rows that hold nothing behind the others."""

    def drop_row(self, row: int) -> None:
        """Ends ``row``: the last row takes its number."""

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """Takes in each row's ``pairs`` and proposes a tree under the last of their tokens.

        ``branch`` is the teacher's cache that the step is verified on, its tail empty. Only a drafter that runs the
        teacher's own first layers writes to it, and says so with ``Draft.shared``. With ``generators``, one a row, the
        proposals are drawn and not the best ones.
        """

    def parts(self) -> dict[str, nn.Module]:
        """The modules that its forwards run through, by the name of what they do; none where it runs none. The one that
        gives the scores comes last: a forward ends with it."""

    def manifest(self) -> DrafterManifest:
        """What the trace says of it."""


class DrafterProxy:
    """A drafter that hands every call on to another. What differs, a subclass overrides.

    Args:
        inner: the drafter that does the work.
    """

    def __init__(self, inner: Drafter) -> None:
        self.inner = inner

    @property
    def policy(self) -> TreePolicy:
        """The inner drafter's."""
        return self.inner.policy

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """The inner drafter's."""
        return self.inner.feature_layers

    @property
    def num_pairs(self) -> list[int]:
        """The inner drafter's."""
        return self.inner.num_pairs

    @property
    def module(self) -> nn.Module | None:
        """The inner drafter's."""
        return self.inner.module

    def kept(self, row: int) -> torch.Tensor | None:
        """The inner drafter's."""
        return self.inner.kept(row)

    def begin_session(self, cache: TreeCache) -> None:
        """Hands it on."""
        self.inner.begin_session(cache)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """Hands it on."""
        self.inner.begin_turn(row, context_ids, num_pairs)

    def add_rows(self, count: int) -> None:
        """Hands it on."""
        self.inner.add_rows(count)

    def drop_row(self, row: int) -> None:
        """Hands it on."""
        self.inner.drop_row(row)

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """The inner drafter's draft."""
        return self.inner.propose(pairs, branch, generators)

    def parts(self) -> dict[str, nn.Module]:
        """The inner drafter's."""
        return self.inner.parts()

    def manifest(self) -> DrafterManifest:
        """The inner drafter's: a trace names the drafter that does the work."""
        return self.inner.manifest()


def innermost(drafter: Drafter) -> Drafter:
    """The drafter that does the work, behind all proxies."""
    while isinstance(drafter, DrafterProxy):
        drafter = drafter.inner
    return drafter


class PairCounter:
    """The rows' pair counts of a drafter that keeps no cache over them."""

    module: torch.nn.Module | None = None

    def __init__(self) -> None:
        self._num_pairs: RowList[int] = RowList()

    @property
    def num_pairs(self) -> list[int]:
        """Pairs taken in by each row; nothing is kept of them."""
        return list(self._num_pairs)

    def kept(self, row: int) -> torch.Tensor | None:
        """None: there is no cache."""
        return None

    def begin_session(self, cache: TreeCache) -> None:
        """Every row starts at none."""
        self._num_pairs = RowList([0] * cache.num_rows)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """Forgets all but the first ``num_pairs``."""
        self._num_pairs[row] = num_pairs

    def add_rows(self, count: int) -> None:
        """Adds ``count`` rows that have taken in nothing behind the others."""
        self._num_pairs += [0] * count

    def drop_row(self, row: int) -> None:
        """The last row takes the number of ``row``."""
        self._num_pairs.drop_row(row)

    def parts(self) -> dict[str, nn.Module]:
        """It runs no module."""
        return {}

    def count(self, pairs: list[DraftPairs]) -> None:
        """Takes in ``pairs``."""
        self._num_pairs = RowList(n + len(p.token_list) for n, p in zip(self._num_pairs, pairs, strict=True))


def pending_tokens(pairs: list[DraftPairs]) -> torch.Tensor:
    """(B,) the rows' roots."""
    return torch.stack([p.tokens[-1] for p in pairs])


def nothing_drafted(pairs: list[DraftPairs], kv_before: list[int], kv_after: list[int]) -> Draft:
    """The draft of a step whose trees are roots, after ``pairs`` were taken in all the same."""
    return Draft(
        tree=root_only(pending_tokens(pairs)),
        pairs=pairs,
        levels=[],
        num_candidates=[0] * len(pairs),
        kv_before=kv_before,
        kv_after=kv_after,
    )


class NoDrafter(PairCounter):
    """Teacher-only decoding: every tree is a root."""

    policy = NO_TREE
    feature_layers: tuple[int, ...] = ()

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """The roots alone."""
        before = self.num_pairs
        self.count(pairs)
        return nothing_drafted(pairs, before, self.num_pairs)

    def manifest(self) -> DrafterManifest:
        """Kind none."""
        return DrafterManifest(kind="none")
