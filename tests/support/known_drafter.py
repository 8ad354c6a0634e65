"""A drafter that knows what will be generated: whole blocks are accepted, and cut where the row ends."""

from __future__ import annotations

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.rows import RowList
from specscope.engine.drafters.base import Draft, DraftPairs, PairCounter
from specscope.engine.tree.grow import DraftTree
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas import Drafter as DrafterManifest

DEPTH = 5


class KnownDrafter(PairCounter):
    """Proposes the continuation of each text, each of its tokens behind a wrong elder sibling.

    Args:
        texts: whole sequences of ids; a row drafts from the one that its context begins.
        vocab_size: for the wrong siblings.
    """

    policy = TreePolicy(kind="dynamic", depth=DEPTH, top_k=2, budget=2 * DEPTH)
    feature_layers: tuple[int, ...] = ()

    def __init__(self, texts: list[list[int]], vocab_size: int) -> None:
        super().__init__()
        self._texts = texts
        self._vocab_size = vocab_size
        self._rows: RowList[list[int]] = RowList()

    def begin_session(self, cache: TreeCache) -> None:
        super().begin_session(cache)
        self._rows = RowList([[]] * cache.num_rows)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        super().begin_turn(row, context_ids, num_pairs)
        self._rows[row] = next(text for text in self._texts if text[: len(context_ids)] == context_ids)

    def add_rows(self, count: int) -> None:
        super().add_rows(count)
        self._rows += [[] for _ in range(count)]

    def drop_row(self, row: int) -> None:
        super().drop_row(row)
        self._rows.drop_row(row)

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        before = self.num_pairs
        self.count(pairs)
        rows = [self._tree(row, own.token_list[-1]) for row, own in enumerate(pairs)]
        width = 2 * DEPTH + 1
        parents = [[0, *(2 * (slot // 2) if slot else 0 for slot in range(width - 1))]] * len(rows)
        depths = [[0, *(slot // 2 + 1 for slot in range(width - 1))]] * len(rows)
        real = torch.zeros(len(rows), width)
        tree = DraftTree(
            tokens=torch.tensor(rows),
            parents=torch.tensor(parents),
            depths=torch.tensor(depths),
            logprobs=real,
            scores=real,
            num_slots=[width] * len(rows),
        )
        return Draft(
            tree=tree,
            pairs=pairs,
            levels=None,
            num_candidates=[width - 1] * len(pairs),
            kv_before=before,
            kv_after=self.num_pairs,
        )

    def _tree(self, row: int, root: int) -> list[int]:
        """Root, then per level the wrong token and the right one, under the right one of the level before."""
        behind = self._rows[row][self._num_pairs[row] + 1 :]
        right = [*behind, *[1] * DEPTH][:DEPTH]
        return [root, *(token for one in right for token in ((one + 1) % self._vocab_size, one))]

    def manifest(self) -> DrafterManifest:
        return DrafterManifest(kind="known")
