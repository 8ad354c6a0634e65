"""A stand-in for the official EAGLE code: its names and calls, as far as the adapter touches them, around a toy.

The toy teacher always says the ``following`` token; the toy head proposes that one second best, and another first.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

VOCAB, TOP_K, DEPTH, NODES = 32, 2, 2, 4
HIDDEN = VOCAB


def following(token: int) -> int:
    """The token that the teacher wants after ``token``."""
    return (5 * token + 3) % VOCAB


class Layer(nn.Module):
    """Passes on what it is given; exists to be hooked."""

    def forward(self, hidden: torch.Tensor, **_: Any) -> torch.Tensor:
        return hidden


class Teacher(nn.Module):
    """Logits in which the following token leads."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.first = nn.Module(), Layer()
        self.model.layers = nn.ModuleList([self.first])
        self.lm_head = Layer()
        self.dtype, self.device = torch.float32, torch.device("cpu")
        text = SimpleNamespace(vocab_size=VOCAB, num_hidden_layers=1, hidden_size=HIDDEN, max_position_embeddings=512)
        self.config = SimpleNamespace(name_or_path="toy", get_text_config=lambda: text)

    def run(self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits (1, N, V)."""
        wanted = torch.tensor([[following(int(token)) for token in tokens[0]]])
        logits = nn.functional.one_hot(wanted, VOCAB).float() * 4 - torch.arange(VOCAB) / VOCAB
        hidden = self.first(logits, attention_mask=mask, position_ids=positions)
        said: torch.Tensor = self.lm_head(hidden)
        return said


class Head(nn.Module):
    """Proposes a wrong token first and the right one second, level after level."""

    def __init__(self) -> None:
        super().__init__()
        self.midlayer, self.logsoftmax = Layer(), nn.LogSoftmax(dim=-1)
        self.top_k, self.depth, self.total_tokens = TOP_K, DEPTH - 1, NODES
        self.config = SimpleNamespace(vocab_size=VOCAB, draft_vocab_size=VOCAB)
        self.stable_kv: Any = None

    def reset_kv(self) -> None:
        self.stable_kv = None

    def _level(self, tokens: list[int], positions: list[int]) -> torch.Tensor:
        right = [following(token) for token in tokens]
        logits = torch.zeros(len(tokens), VOCAB)
        for row, token in enumerate(right):
            logits[row, token], logits[row, (token + 1) % VOCAB] = 3.0, 4.0
        self.midlayer(logits, position_ids=torch.tensor([positions]))
        logprobs: torch.Tensor = self.logsoftmax(logits)
        return logprobs

    def topK_genrate(self, hidden: torch.Tensor, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:  # noqa: N802
        """The tree below the last token: tokens (1, 1 + NODES), paths, mask and depths."""
        pairs = input_ids[0, 1:].tolist()
        known = 0 if self.stable_kv is None else self.stable_kv[0][0].shape[2]
        best = self._level(pairs[-1:], list(range(known, len(pairs)))).topk(TOP_K, -1)
        self.stable_kv = ((torch.zeros(1, 1, len(pairs), 1),),)
        firsts = best.indices[0].tolist()
        below = self._level(firsts, [len(pairs)] * TOP_K).topk(TOP_K, -1)
        scores = [*best.values[0].tolist(), *(below.values + best.values[0][:, None]).flatten().tolist()]
        tokens, parents = [*firsts, *below.indices.flatten().tolist()], [-1, -1, 0, 0, 1, 1]
        kept = sorted(sorted(range(len(scores)), key=lambda n: -scores[n])[:NODES])
        slots = {-1: 0} | {number: slot for slot, number in enumerate(kept, start=1)}
        above = [0, *(slots[parents[number]] for number in kept)]
        mask = torch.eye(NODES + 1)
        for slot in range(1, NODES + 1):
            mask[slot] += mask[above[slot]]
        leaves = [slot for slot in range(1, NODES + 1) if slot not in above[1:]]
        paths = [[0, above[leaf], leaf] if above[leaf] else [0, leaf, -1] for leaf in leaves]
        tree = torch.tensor([[pairs[-1], *(tokens[number] for number in kept)]])
        return tree, torch.tensor(paths), mask[None, None], mask.sum(-1).long() - 1


class EaModel(nn.Module):
    """As far as the adapter looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model, self.ea_layer, self.use_eagle3 = Teacher(), Head(), True
        self.tokenizer = SimpleNamespace(eos_token_id=VOCAB + 1)
        self.current_length_data = torch.zeros(1, dtype=torch.long)

    def eagenerate(
        self, input_ids: torch.Tensor, temperature: float = 0.0, max_new_tokens: int = 8, max_length: int = 512
    ) -> torch.Tensor:
        """Greedy; ends some tokens after the limit."""
        assert input_ids.shape[1] + max_new_tokens < max_length
        processor = object() if temperature else None
        self.ea_layer.reset_kv()
        length = input_ids.shape[1]
        tree, paths, mask, depths, *_ = initialize_tree(input_ids, self, None, processor)
        while input_ids.shape[1] - length <= max_new_tokens:
            past = [[SimpleNamespace(current_length=torch.tensor(input_ids.shape[1]))]]
            self.mask = mask
            logits, *_ = tree_decoding(self, tree, past, depths, input_ids, paths)
            candidates = torch.cat([tree, torch.tensor([[-1]])], 1)[0, paths]
            leaf, accepted, _ = evaluate_posterior(logits, candidates, processor)
            given: list[Any] = [input_ids, candidates, leaf, accepted, paths, processor]  # in order, as the code does
            given += [0, [], self.current_length_data, self, None, logits]
            input_ids, tree, paths, mask, depths, *_ = update_inference_inputs(*given)
        return input_ids


def initialize_tree(input_ids: torch.Tensor, model: EaModel, past: Any, processor: Any) -> Any:
    """The prompt's forward, and the first tree; the first token is the seventh."""
    count = input_ids.shape[1]
    mask = torch.full((1, 1, count, count), float("-inf")).triu(1)
    logits = model.base_model.run(input_ids, mask, torch.arange(count)[None])
    token = logits[0, -1].argmax()[None, None]
    drawn = model.ea_layer.topK_genrate(logits, torch.cat([input_ids, token], 1), None, processor)
    return (*drawn, logits, logits, token)


def tree_decoding(
    model: EaModel, tree: torch.Tensor, past: Any, depths: torch.Tensor, input_ids: torch.Tensor, paths: torch.Tensor
) -> Any:
    """Logits along the paths."""
    count, before = tree.shape[1], input_ids.shape[1]
    mask = torch.zeros(1, 1, count, before + count)
    mask[..., before:].masked_fill_(model.mask == 0, float("-inf"))
    logits = model.base_model.run(tree, mask, (depths + before)[None])
    return logits[0, paths], None, None


def evaluate_posterior(logits: torch.Tensor, candidates: torch.Tensor, _: Any) -> Any:
    """The path that agrees longest, and for how long."""
    agrees = (candidates[:, 1:] == logits[:, :-1].argmax(-1)).int().cumprod(1).sum(1)
    leaf = agrees.argmax()
    return leaf, agrees[leaf], logits[leaf, agrees[leaf]]


def update_inference_inputs(
    input_ids: torch.Tensor,
    candidates: torch.Tensor,
    leaf: torch.Tensor,
    accepted: torch.Tensor,
    paths: torch.Tensor,
    processor: Any,
    num_new: int,
    caches: list[Any],
    lengths: torch.Tensor,
    model: EaModel,
    hidden: Any,
    logits: torch.Tensor,
) -> Any:
    """Commits the path and drafts the next tree; the bonus token is the eighth."""
    input_ids = torch.cat([input_ids, candidates[None, leaf, : int(accepted) + 1]], 1)
    lengths.fill_(input_ids.shape[1])
    token = logits[leaf, accepted].argmax()[None, None]
    fed = torch.zeros(1, int(accepted) + 1, HIDDEN)
    drawn = model.ea_layer.topK_genrate(fed, input_ids=torch.cat([input_ids, token], 1), logits_processor=processor)
    return (input_ids, *drawn, num_new, None, token)
