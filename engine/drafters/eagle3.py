"""The EAGLE-3 drafter: feeds the head, keeps its cache, grows the dynamic tree.

After every step the cache holds exactly the committed pairs; the tree's own entries lie behind them for as long as it
grows and are then dropped.
"""

from __future__ import annotations

import torch
from torch import nn

from specscope.engine.attention import ATTENTION
from specscope.engine.digests import digest_file, digest_files
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.drafters.eagle3_files import CONFIG_NAME, HeadFiles
from specscope.engine.drafters.eagle3_head import HeadOutput
from specscope.engine.tree import Level, TreePolicy, best_candidates, propose, select_tree
from specscope.schemas import Drafter as DrafterManifest
from specscope.tracer.errors import UsageError


class HeadCache:
    """The head's keys and values (kv heads, capacity, head_dim) over pairs, then over the growing tree."""

    def __init__(self, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self._keys = torch.zeros(num_kv_heads, 512, head_dim, dtype=dtype, device=device)
        self._values = torch.zeros_like(self._keys)
        self.length = 0

    def append(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds rows (kv heads, R, head_dim) and returns all rows in use."""
        end = self.length + key.shape[1]
        if end > self._keys.shape[1]:
            spare = self._keys.new_zeros(self._keys.shape[0], end, self._keys.shape[2])
            self._keys = torch.cat([self._keys, spare], dim=1)
            self._values = torch.cat([self._values, torch.zeros_like(spare)], dim=1)
        self._keys[:, self.length : end] = key
        self._values[:, self.length : end] = value
        self.length = end
        return self._keys[:, :end], self._values[:, :end]


class Eagle3Drafter:
    """Proposes EAGLE-2 dynamic trees with an EAGLE-3 head."""

    def __init__(
        self,
        files: HeadFiles,
        embedding: nn.Module,
        feature_layers: tuple[int, ...],
        policy: TreePolicy,
        attention: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        if len(feature_layers) != 3:
            raise UsageError(f"got feature layers {feature_layers}, wanted three (low, mid, high)")
        self.policy = policy
        self.feature_layers = feature_layers
        self._files = files
        self._head = files.head.to(device=device, dtype=dtype)
        self._embedding = embedding
        self._attend = ATTENTION[attention]
        shape = self._head.config
        self._scale = shape.head_dim**-0.5
        self._cache = HeadCache(shape.num_kv_heads, shape.head_dim, dtype, device)

    @property
    def num_pairs(self) -> int:
        """Pairs in the head's cache."""
        return self._cache.length

    def truncate(self, num_pairs: int) -> None:
        """Keeps the first ``num_pairs`` pairs."""
        self._cache.length = num_pairs

    def manifest(self) -> DrafterManifest:
        """Kind eagle3, with digests, feature layers and the draft vocabulary's mapping."""
        files, shape = self._files, self._head.config
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
        )

    def propose(self, pairs: DraftPairs) -> Draft:
        """Takes in ``pairs`` and grows a tree under the last of their tokens."""
        before = self.num_pairs
        output = self._take_in(pairs)
        after = self.num_pairs
        levels = self._grow(output, pairs.tokens[-1])
        self.truncate(after)
        tree = select_tree(levels, pairs.tokens[-1], self.policy.budget)
        return Draft(tree, pairs, list(range(before, after)), levels, before, after)

    def _take_in(self, pairs: DraftPairs) -> HeadOutput:
        """The last pair's output (1, ...) after a causal forward over all of them."""
        before, rows = self.num_pairs, pairs.tokens.numel()
        device = pairs.tokens.device
        positions = torch.arange(before, before + rows, device=device)
        columns = torch.arange(before + rows, device=device)
        visible = columns <= positions[:, None]
        hidden = self._head.fc(pairs.features)
        output = self._forward(hidden, pairs.tokens, positions, visible)
        return HeadOutput(output.hidden[-1:], output.logits[-1:])

    def _grow(self, output: HeadOutput, pending_token: torch.Tensor) -> list[Level]:
        """All levels of proposals below the pending token, whose output is given."""
        num_pairs, top_k = self.num_pairs, self.policy.top_k
        device = pending_token.device
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        root_score = torch.zeros(1, device=device)
        root_position = torch.full((1,), num_pairs - 1, device=device)
        levels = [self._level(output, empty, root_score, root_position)]
        seen = torch.zeros(1, 0, dtype=torch.bool, device=device)  # per frontier row: tree rows on its path
        numbered = 0  # candidates before the last level's
        for depth in range(1, self.policy.depth):
            last = levels[-1]
            chosen = best_candidates(last, top_k)  # (R,) within the level
            row = chosen // last.tokens.shape[1]
            hidden = output.hidden[row]
            own = torch.eye(chosen.numel(), dtype=torch.bool, device=device)
            seen = torch.cat([seen[row], own], dim=1)
            visible = torch.cat([seen.new_ones(len(seen), num_pairs), seen], dim=1)
            positions = torch.full_like(chosen, num_pairs - 1 + depth)
            output = self._forward(hidden, last.tokens.flatten()[chosen], positions, visible)
            levels.append(self._level(output, chosen + numbered, last.scores.flatten()[chosen], positions))
            numbered += last.tokens.numel()
        return levels

    def _level(
        self, output: HeadOutput, frontier: torch.Tensor, scores: torch.Tensor, positions: torch.Tensor
    ) -> Level:
        level = propose(output.logits, frontier, scores, positions, self.policy.top_k)
        mapped = self._head.teacher_tokens(level.tokens)
        return Level(level.frontier, positions, level.parents, mapped, level.logprobs, level.scores, level.all_finite)

    def _forward(
        self, hidden: torch.Tensor, tokens: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor
    ) -> HeadOutput:
        """One forward over R rows: ``hidden`` (R, H), ``tokens`` and ``positions`` (R,), ``visible`` (R, S) bool."""
        query, key, value = self._head.project(hidden, self._embedding(tokens), positions)
        keys, values = self._cache.append(key, value)
        mask = torch.zeros(visible.shape, dtype=hidden.dtype, device=hidden.device)
        mask.masked_fill_(~visible, -float("inf"))
        attended = self._attend(query[None], keys[None], values[None], mask[None, None], self._scale)
        return self._head.finish(hidden, attended[0])
