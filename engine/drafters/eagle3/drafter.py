"""The EAGLE-3 drafter: feeds the head, keeps its cache, grows trees.

After every step the cache holds exactly the committed pairs of each row; the tree's own entries lie after them for as
long as it grows and are then dropped. The cache is the teacher's kind, with the layers of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from specscope.engine.backends.attention import ATTENTION
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.digests import digest_file, digest_files
from specscope.engine.drafters.base import Draft, DraftPairs, nothing_drafted
from specscope.engine.drafters.draws import DraftSampler
from specscope.engine.drafters.eagle3.files import CONFIG_NAME, HeadFiles
from specscope.engine.drafters.eagle3.head import Eagle3Head, HeadOutput, QueryKeyValue
from specscope.engine.drafters.growing import ScoredRoots, SelectTree, grow_draft
from specscope.engine.host import sent
from specscope.engine.tree.grow import Frontier, select_tree
from specscope.engine.tree.policy import TreePolicy
from specscope.engine.tree.tensors import causal, mask_behind
from specscope.schemas import Drafter as DrafterManifest
from specscope.tracer.errors import UsageError

CAPACITY = 512  # pairs that a cache has room for at first


def as_counted(indices: torch.Tensor, level: int) -> torch.Tensor:
    """A pair's drafter position is its index, that of a row of the tree its parent's plus one."""
    return indices


class TakenIn(NamedTuple):
    """What came of the committed pairs."""

    output: HeadOutput  # (B, 1, ...) at each row's last pair
    positions: list[torch.Tensor]  # (R,) a row, that its pairs were rotated by


class FedTogether(NamedTuple):
    """Pairs of several rows, padded to the most."""

    features: torch.Tensor  # (B, R, F)
    tokens: torch.Tensor  # (B, R)
    indices: torch.Tensor  # (B, R)
    positions: torch.Tensor  # (B, R) that they are rotated by


class Eagle3Drafter:
    """Proposes trees with an EAGLE-3 head.

    Args:
        files: the head.
        policy: how trees are grown.
        embedding: the teacher's input embedding, where the head brings none.
        feature_layers: transformers hidden_states indices, low to high.
        attention: ``eager`` or ``fused``.
        dtype, device: where and in what it computes.
        sampler: draws the proposals; None for the best ones.
        window: how many pairs each row sees at most, its own and the last before it; None for all. The rows of a tree
            also see the nodes above them.

    Two seams are public, so that a deliberate fault can go in there: ``place`` gives the positions that pairs (level 0)
    and the rows fed for a further level are rotated by, given their indices; ``forget`` ends a tree in the cache.

    Letters: B rows of the batch, R pairs or frontier rows, H hidden, F features, V draft vocabulary.
    """

    def __init__(
        self,
        files: HeadFiles,
        policy: TreePolicy,
        *,
        embedding: nn.Module,
        feature_layers: tuple[int, ...],
        attention: str,
        dtype: torch.dtype,
        device: torch.device,
        sampler: DraftSampler | None = None,
        window: int | None = None,
    ) -> None:
        if len(feature_layers) != 3:
            raise UsageError(f"got feature layers {feature_layers}, wanted three (low, mid, high)")
        self.policy = policy
        self.feature_layers = feature_layers
        self._files = files
        self.head: Eagle3Head = files.head.to(device=device, dtype=dtype)
        self.place: Callable[[torch.Tensor, int], torch.Tensor] = as_counted
        self.forget: Callable[[TreeCache], None] = TreeCache.drop_tail
        self._embedding = embedding
        self._attend = ATTENTION[attention]
        self._scale = self.head.config.head_dim**-0.5
        self._cache = TreeCache(self.head.config.num_layers, CAPACITY)
        self._sampler = sampler
        self._deepest = policy.depth  # of all the trees so far: as many pairs may a step take in
        self._window = window

    @property
    def num_pairs(self) -> list[int]:
        """Pairs in each row's cache."""
        return list(self._cache.committed_lengths)

    @property
    def module(self) -> nn.Module:
        """The head."""
        return self.head

    def kept(self, row: int) -> torch.Tensor | None:
        """(L, 2, G, R, W) keys and values of the pairs of ``row``, in all layers of the head."""
        return self._cache.committed(row)

    def begin_session(self, cache: TreeCache) -> None:
        """An empty cache of as many rows."""
        self._cache = TreeCache(self.head.config.num_layers, CAPACITY, cache.num_rows)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """Keeps the first ``num_pairs`` pairs of ``row``."""
        self._cache.truncate(row, num_pairs)

    def add_rows(self, count: int) -> None:
        """Adds ``count`` rows without a pair behind the others."""
        self._cache.add_rows(count)

    def drop_row(self, row: int) -> None:
        """The last row takes the number of ``row``."""
        self._cache.drop_row(row)

    def parts(self) -> dict[str, nn.Module]:
        """The head's own, and the embedding."""
        return {"embedding": self._embedding, **self.head.parts()}

    def manifest(self) -> DrafterManifest:
        """Kind eagle3, with digests, feature layers and the draft vocabulary's mapping."""
        files, shape = self._files, self.head.config
        return DrafterManifest(
            kind="eagle3",
            name=files.folder.name,
            config_digest=digest_file(files.folder / CONFIG_NAME),
            weights_digest=digest_files(files.folder.glob("*.safetensors")),
            hidden_state_indices=list(self.feature_layers),
            rope_theta=shape.rope_theta,
            rope_theta_source=files.rope_theta_source,
            draft_vocab_size=shape.draft_vocab_size,
            vocab_mapping="offset" if files.vocab_mapping == "offset" else "identity",
            max_positions=shape.max_positions,
            num_layers=shape.num_layers,
            settings=None if self._window is None else {"window": self._window},
        )

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """Takes in each row's ``pairs`` and grows a tree under the last of their tokens."""
        return self.grow(pairs, self.policy, generators=generators)

    def grow(
        self,
        pairs: list[DraftPairs],
        policy: TreePolicy,
        *,
        select: SelectTree = select_tree,
        generators: list[torch.Generator] | None = None,
    ) -> Draft:
        """``propose`` by another policy, or with a tree that is selected in another way."""
        before = self.num_pairs
        if self.policy.kind == "none":
            return self._nothing(pairs, before)
        self._deepest = max(self._deepest, self.policy.depth)
        output, placed = self._take_in(pairs)
        after, hidden = self.num_pairs, output.hidden  # (B, R, H) of the forward before
        roots = ScoredRoots(
            pairs=pairs,
            logits=output.logits,
            positions=sent(after, hidden.device)[:, None] - 1,
            kv_before=before,
            kv_after=after,
        )
        # Per level (B, R): the positions that the rows which proposed were rotated by.
        rotated_by = [torch.stack([positions[-1:] for positions in placed])]

        def expand(frontier: Frontier) -> torch.Tensor:
            nonlocal hidden
            fed = hidden.gather(1, frontier.parent_rows[:, :, None].expand(-1, -1, hidden.shape[2]))
            rotated_by.append(self.place(frontier.positions, len(rotated_by)))
            mask = self._within_window(mask_behind(after, frontier.seen, fed.dtype), frontier.positions, after)
            expanded = self._forward(fed, frontier.tokens, rotated_by[-1], mask)
            hidden = expanded.hidden
            return expanded.logits

        draft = grow_draft(
            policy,
            roots,
            expand,
            to_teacher=self.head.teacher_tokens,
            select=select,
            sampler=self._sampler,
            generators=generators,
        )
        self.forget(self._cache)
        assert draft.levels is not None
        levels = [replace(level, positions=used) for level, used in zip(draft.levels, rotated_by, strict=True)]
        return replace(draft, levels=levels, positions=placed)

    def _nothing(self, pairs: list[DraftPairs], before: list[int]) -> Draft:
        """Takes in each row's ``pairs`` and drafts nothing; the caches had ``before`` pairs."""
        placed = self._keep(pairs)
        return replace(nothing_drafted(pairs, before, self.num_pairs), positions=placed)

    def _keep(self, pairs: list[DraftPairs]) -> list[torch.Tensor]:
        """Puts the pairs' keys and values into the cache and scores nothing: a head of one layer needs no more of them
        later. Of several, all must run. (R,) a row, the positions that they were rotated by."""
        if self.head.config.num_layers > 1:
            return self._take_in(pairs).positions
        counts = [len(p.token_list) for p in pairs]
        if len(pairs) > 1 and max(counts) > self._deepest + 1:
            placed = []
            for row, row_pairs in enumerate(pairs):
                with self._cache.only(row):
                    placed += self._keep([row_pairs])
            return placed
        fed = self._padded(pairs)
        hidden = self.head.first_hidden(fed.features)
        table = self.head.rotation(fed.positions, hidden.dtype)
        states = self.head.project(hidden, self._embedding(fed.tokens), table)
        self._cache.update(states.key, states.value, 0)
        self._cache.commit_length(counts)
        return [row[:count] for row, count in zip(fed.positions, counts, strict=True)]

    def _padded(self, pairs: list[DraftPairs]) -> FedTogether:
        """The pairs of all active rows side by side."""
        before = self._cache.active_lengths
        features = nn.utils.rnn.pad_sequence([p.features for p in pairs], batch_first=True)
        tokens = nn.utils.rnn.pad_sequence([p.tokens for p in pairs], batch_first=True)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        indices = sent(before, tokens.device)[:, None] + steps
        return FedTogether(features, tokens, indices, self.place(indices, 0))

    def _take_in(self, pairs: list[DraftPairs]) -> TakenIn:
        """Feeds each row its pairs. Rows with a whole prompt to take in go one by one, so that
        the others are not padded to its length."""
        counts = [len(p.token_list) for p in pairs]
        if len(pairs) == 1 or max(counts) <= self._deepest + 1:
            return self._take_in_together(pairs, counts)
        taken = []
        for row, (row_pairs, count) in enumerate(zip(pairs, counts, strict=True)):
            with self._cache.only(row):
                taken.append(self._take_in_together([row_pairs], [count]))
        output = HeadOutput(*(torch.cat(values) for values in zip(*(t.output for t in taken), strict=True)))
        return TakenIn(output, [t.positions[0] for t in taken])

    def _take_in_together(self, pairs: list[DraftPairs], counts: list[int]) -> TakenIn:
        before, most = self._cache.active_lengths, max(counts)
        features, tokens, indices, positions = self._padded(pairs)
        hidden = self.head.first_hidden(features)
        mask = mask_behind(before, causal(len(pairs), most, tokens.device), hidden.dtype)
        mask = self._within_window(mask, indices, [length + most for length in before])
        output = self._forward(hidden, tokens, positions, mask)
        self._cache.commit_length(counts)
        last = sent(counts, tokens.device)[:, None, None] - 1
        at_last = HeadOutput(*(values.gather(1, last.expand(-1, 1, values.shape[2])) for values in output))
        return TakenIn(at_last, [row[:count] for row, count in zip(positions, counts, strict=True)])

    def _within_window(self, mask: torch.Tensor, indices: torch.Tensor, num_pairs: list[int]) -> torch.Tensor:
        """``mask`` (B, 1, R, S) without the pairs, the first ``num_pairs`` columns of each row of the batch, that are
        too far from a row's index (B, R)."""
        if self._window is None:
            return mask
        columns = torch.arange(mask.shape[3], device=mask.device)
        is_pair = columns < sent(num_pairs, mask.device)[:, None, None]
        is_old = columns <= indices[:, :, None] - self._window
        return mask.masked_fill((is_pair & is_old)[:, None], -float("inf"))

    def _forward(
        self, hidden: torch.Tensor, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor
    ) -> HeadOutput:
        """``hidden`` (B, R, H), ``tokens`` and ``positions`` (B, R), ``mask`` (B, 1, R, S) additive."""

        def attend(layer: int, projected: QueryKeyValue) -> torch.Tensor:
            keys, values = self._cache.update(projected.key, projected.value, layer)
            return self._attend(projected.query, keys, values, mask, scale=self._scale)

        output: HeadOutput = self.head(hidden, self._embedding(tokens), positions, attend)
        return output
