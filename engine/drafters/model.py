"""The model drafter: a smaller causal language model with the teacher's tokenizer, grown into trees.

Its cache holds the tokens of the committed pairs and the one before them: always one more than there are pairs. The
tree's own entries lie after them for as long as it grows, and are then dropped.
"""

from __future__ import annotations

import torch
from torch import nn

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.rows import RowList
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.drafters.draws import DraftSampler
from specscope.engine.drafters.growing import ScoredRoots, grow_draft
from specscope.engine.host import sent
from specscope.engine.teacher.model import PREFILL_ROWS, Teacher
from specscope.engine.teacher.parts import named_parts
from specscope.engine.tree.grow import Frontier
from specscope.engine.tree.policy import TreePolicy
from specscope.engine.tree.tensors import causal, causal_mask, mask_behind
from specscope.schemas import Drafter as DrafterManifest
from specscope.tracer.errors import CheckpointError


def check_same_vocabulary(model: Teacher, teacher: Teacher) -> None:
    """Refuses a ``model`` whose token ids do not mean what the teacher's do.

    Raises:
        CheckpointError: where the vocabularies' sizes differ, or both have a tokenizer.json and these differ.
    """
    if model.vocab_size != teacher.vocab_size:
        raise CheckpointError(
            f"the model at {model.folder} cannot draft for {teacher.folder}: its vocabulary has {model.vocab_size} "
            f"ids, the teacher's {teacher.vocab_size}; give a model of the same family"
        )
    drafters, teachers = model.tokenizer_manifest(), teacher.tokenizer_manifest()
    if drafters is not None and teachers is not None and drafters.digest != teachers.digest:
        raise CheckpointError(
            f"the model at {model.folder} cannot draft for {teacher.folder}: its tokenizer.json has digest "
            f"{drafters.digest}, the teacher's {teachers.digest}; give a model with the same tokenizer"
        )


class ModelDrafter:
    """Proposes trees with its own, smaller language model.

    Args:
        model: the small model, loaded as teachers are.
        policy: how trees are grown.
        sampler: draws the proposals; None for the best ones.

    Letters: B rows of the batch, R tokens or frontier rows, V vocabulary.
    """

    feature_layers: tuple[int, ...] = ()

    def __init__(self, model: Teacher, policy: TreePolicy, sampler: DraftSampler | None = None) -> None:
        self.policy = policy
        self._model = model
        self._sampler = sampler
        self._deepest = policy.depth  # of all the trees so far: as many tokens may a step take in
        self._cache = model.new_cache()
        self._first_tokens: RowList[int] = RowList()  # of each row's context: no pair brings it

    @property
    def num_pairs(self) -> list[int]:
        """Pairs in each row's cache: its tokens but the first."""
        return [max(0, length - 1) for length in self._cache.committed_lengths]

    @property
    def module(self) -> nn.Module:
        """The small model."""
        return self._model.model

    def kept(self, row: int) -> torch.Tensor | None:
        """(L, 2, G, R + 1, W) keys and values of the tokens of ``row``."""
        return self._cache.committed(row)

    def begin_session(self, cache: TreeCache) -> None:
        """An empty cache of as many rows."""
        self._cache = self._model.new_cache(cache.num_rows)
        self._first_tokens = RowList([0] * cache.num_rows)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """Keeps the tokens of the first ``num_pairs`` pairs and the one before them; of no pair, nothing."""
        self._cache.truncate(row, num_pairs + 1 if num_pairs else 0)
        self._first_tokens[row] = context_ids[0]

    def add_rows(self, count: int) -> None:
        """Adds ``count`` rows without a token behind the others."""
        self._cache.add_rows(count)
        self._first_tokens += [0] * count

    def drop_row(self, row: int) -> None:
        """The last row takes the number of ``row``."""
        self._cache.drop_row(row)
        self._first_tokens.drop_row(row)

    def parts(self) -> dict[str, nn.Module]:
        """Those of the small model, layer by layer."""
        return named_parts(self._model, range(self._model.num_layers))

    def manifest(self) -> DrafterManifest:
        """Kind model, with the digests and positions of the small one."""
        model = self._model.manifest()
        return DrafterManifest(
            kind="model",
            name=model.name,
            config_digest=model.config_digest,
            weights_digest=model.weights_digest,
            rope_theta=model.rope_theta,
            max_positions=model.max_positions,
        )

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """Takes in each row's tokens and grows a tree under the last of them."""
        before = self.num_pairs
        self._deepest = max(self._deepest, self.policy.depth)
        logits = self._take_in([self._fresh(row, fed) for row, fed in enumerate(pairs)])
        after, lengths = self.num_pairs, list(self._cache.committed_lengths)
        roots = ScoredRoots(
            pairs=pairs,
            logits=logits,
            positions=sent(after, logits.device)[:, None] - 1,
            kv_before=before,
            kv_after=after,
        )

        def expand(frontier: Frontier) -> torch.Tensor:
            mask = mask_behind(lengths, frontier.seen, self._model.dtype)
            return self._model.forward(
                frontier.tokens, frontier.positions + 1, mask, cache=self._cache, feature_layers=()
            ).logits

        draft = grow_draft(self.policy, roots, expand, sampler=self._sampler, generators=generators)
        self._cache.drop_tail()
        return draft

    def _fresh(self, row: int, fed: DraftPairs) -> torch.Tensor:
        """(R,) the tokens that the cache of ``row`` lacks."""
        if self._cache.committed_lengths[row]:
            return fed.tokens
        return torch.cat([fed.tokens.new_tensor([self._first_tokens[row]]), fed.tokens])

    def _take_in(self, tokens: list[torch.Tensor]) -> torch.Tensor:
        """Logits (B, 1, V) at each row's last token. Rows with a whole prompt to take in go one by one, so that the
        others are not padded to its length."""
        if len(tokens) > 1 and max(map(len, tokens)) <= self._deepest + 2:
            return self._take_in_together(tokens)
        outputs = []
        for row, row_tokens in enumerate(tokens):
            with self._cache.only(row):
                outputs.append(self._take_in_alone(row_tokens))
        return torch.cat(outputs)

    def _take_in_alone(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same for the one active row, in chunks."""
        for chunk in tokens.split(PREFILL_ROWS):
            (length,), count = self._cache.active_lengths, len(chunk)
            positions = torch.arange(length, length + count, device=tokens.device)
            mask = causal_mask(count, length, self._model.dtype, tokens.device)
            output = self._model.forward(
                chunk[None], positions[None], mask, cache=self._cache, feature_layers=(), last_row_only=True
            )
            self._cache.commit_length([count])
        return output.logits

    def _take_in_together(self, tokens: list[torch.Tensor]) -> torch.Tensor:
        before, counts = self._cache.committed_lengths, [len(row_tokens) for row_tokens in tokens]
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True)  # (B, R)
        steps = torch.arange(padded.shape[1], device=padded.device)
        positions = sent(before, padded.device)[:, None] + steps
        mask = mask_behind(before, causal(len(tokens), len(steps), padded.device), self._model.dtype)
        logits = self._model.forward(padded, positions, mask, cache=self._cache, feature_layers=()).logits
        self._cache.commit_length(counts)
        last = sent(counts, padded.device)[:, None, None] - 1
        return logits.gather(1, last.expand(-1, 1, logits.shape[2]))
