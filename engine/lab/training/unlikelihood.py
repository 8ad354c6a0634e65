"""Teaches the teacher not to loop: unlikelihood training on its own greedy text (Welleck et al., 2020).

A small language model decoded greedily soon repeats itself, and a draft head is then measured on text that anyone can
foresee. Each update adds to the usual loss, on tokens that complete an n-gram which the row already held,
-log(1 - p(token)).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from specscope.engine.lab.training.loop import BatchLoss, Training
from specscope.engine.lab.training.loop import train as run_training
from specscope.engine.lab.training.schedule import batch_at, warmup_stable_decay
from specscope.engine.lab.training.self_text import continue_prompts, cut_prompts
from specscope.engine.lab.training.teacher import EVALUATED_TOKENS, held_out_loss, next_token_loss

CHECKPOINT_EVERY = 40  # updates


@dataclass(frozen=True, kw_only=True)
class UnlikelihoodRecipe:
    """Everything that decides this stage."""

    num_steps: int = 240
    ngram: int = 6
    rows: int = 96  # generated at a time, and used up over ``reuse`` updates
    reuse: int = 4
    new_tokens: int = 80
    batch_size: int = 8
    length: int = 512
    lr: float = 2e-4
    weight: float = 1.0
    seed: int = 4


def repeated_mask(rows: NDArray[np.int64], ngram: int, first: int) -> NDArray[np.bool_]:
    """(B, T): True where a token at or after column ``first`` completes an n-gram that its row already held."""
    mask = np.zeros(rows.shape, dtype=bool)
    for number, row in enumerate(rows):
        seen: set[tuple[int, ...]] = set()
        for end in range(ngram, len(row) + 1):
            gram = tuple(row[end - ngram : end].tolist())
            mask[number, end - 1] = gram in seen and end - 1 >= first
            seen.add(gram)
    return mask


def unlikelihood_loss(model: LlamaForCausalLM, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of -log(1 - p) over the masked tokens of ``ids`` (B, T); 0 where none is masked."""
    logits = model(ids[:, :-1], use_cache=False).logits.float()  # (B, T-1, V)
    logprobs = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    losses = -torch.log1p(-logprobs.exp().clamp(max=1 - 1e-4))
    wanted = mask[:, 1:]
    return (losses * wanted).sum() / wanted.sum().clamp(min=1)


class Repetitions(NamedTuple):
    """What the model wrote of itself, and where it repeats itself."""

    tokens: NDArray[np.int64]  # (rows, prompt + new)
    mask: NDArray[np.bool_]  # the same shape: tokens that repeat
    prompt_length: int

    @property
    def share(self) -> float:
        """The share of the new tokens that repeat."""
        return float(self.mask[:, self.prompt_length :].mean())

    def part(self, number: int, of: int) -> Repetitions:
        """Every ``of``-th row, from row ``number`` on."""
        return Repetitions(self.tokens[number::of], self.mask[number::of], self.prompt_length)


class TextAndRepetitions(NamedTuple):
    """What one update is made on."""

    ids: torch.Tensor  # (B, T) of the corpus
    repetitions: Repetitions


def write_repetitions(
    recipe: UnlikelihoodRecipe, model: LlamaForCausalLM, train: NDArray[np.int64], step: int
) -> Repetitions:
    """Has ``model`` continue prompts cut from ``train``; leaves it in training mode."""
    prompts = cut_prompts(train, recipe.rows, recipe.seed + step)
    device = torch.device(model.device)
    tokens = continue_prompts(model.eval(), prompts.to(device), recipe.new_tokens, greedy=True).cpu().numpy()
    model.train()
    return Repetitions(tokens, repeated_mask(tokens, recipe.ngram, prompts.shape[1]), prompts.shape[1])


def train_against_repetition(
    recipe: UnlikelihoodRecipe,
    model: LlamaForCausalLM,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    folder: Path,
) -> LlamaForCausalLM:
    """Fine-tunes ``model`` in place, with checkpoints in ``folder``; resumes where one is found."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0)
    optimizer.param_groups[0]["peak_lr"] = recipe.lr
    device = torch.device(model.device)
    written: list[Repetitions] = []  # the last of them is used up

    def batch(step: int) -> TextAndRepetitions:
        if not written or step % recipe.reuse == 0:
            written[:] = [write_repetitions(recipe, model, train, step)]
        ids = batch_at(train, step, batch_size=recipe.batch_size, length=recipe.length, seed=recipe.seed)
        return TextAndRepetitions(ids.to(device), written[0].part(step % recipe.reuse, recipe.reuse))

    def loss(_: int, batch: TextAndRepetitions) -> BatchLoss:
        likelihood = next_token_loss(model, batch.ids)
        rows = torch.from_numpy(batch.repetitions.tokens).to(device)
        unlikelihood = unlikelihood_loss(model, rows, torch.from_numpy(batch.repetitions.mask).to(device))
        report: dict[str, torch.Tensor | float] = {"loss": likelihood, "unlikelihood": unlikelihood}
        report["repeated"] = written[0].share
        return BatchLoss(likelihood + recipe.weight * unlikelihood, batch.ids.numel() + rows.numel(), report)

    training = Training(
        module=model,
        optimizers=[optimizer],
        num_steps=recipe.num_steps,
        schedule=lambda step: warmup_stable_decay(step, recipe.num_steps, warmup=10),
        data=batch,
        loss=loss,
        max_norm=1.0,
        report_every=recipe.reuse,
        checkpoint_every=CHECKPOINT_EVERY,
        evaluate=lambda: {"held_out_loss": held_out_loss(model, held_out, recipe.length, EVALUATED_TOKENS)},
    )
    run_training(training, folder)
    return model
