"""Trains the demo teacher: a small Llama, on the corpus, by next-token prediction.

Muon for the hidden matrices and AdamW for the rest; on the CPU bfloat16 autocast is what makes it bearable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from transformers import LlamaConfig, LlamaForCausalLM

from specscope.engine.lab.training.loop import BatchLoss, Training
from specscope.engine.lab.training.loop import train as run_training
from specscope.engine.lab.training.schedule import batch_at, warmup_stable_decay

CHECKPOINT_EVERY = 200  # updates
EVALUATED_TOKENS = 60_000  # of the held-out text, at each checkpoint


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """Everything that decides the teacher's weights, except for the data."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_layers: int = 10
    num_heads: int = 4
    num_kv_heads: int = 2
    max_positions: int = 2048
    num_steps: int = 1600
    batch_size: int = 12
    length: int = 512
    muon_lr: float = 5e-3
    adam_lr: float = 3e-3
    seed: int = 1

    def config(self) -> LlamaConfig:
        """The architecture as transformers states it; id 0 is end-of-text."""
        return LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            max_position_embeddings=self.max_positions,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )


def make_optimizers(module: nn.Module, muon_lr: float, adam_lr: float) -> list[Optimizer]:
    """Muon for two-dimensional weights but embeddings and output heads, AdamW(0.9, 0.95) for those and the norms."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if hidden else rest).append(parameter)
    optimizers: list[Optimizer] = [
        torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def next_token_loss(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, nats per token, of ``ids`` (B, T) under ``model``."""
    logits = model(ids[:, :-1], use_cache=False).logits  # (B, T-1, V)
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, stream: NDArray[np.int64], length: int, max_tokens: int) -> float:
    """Mean cross-entropy over the first ``max_tokens`` of ``stream``, in chunks of ``length``."""
    num_chunks = min(len(stream), max_tokens) // length
    ids = torch.from_numpy(stream[: num_chunks * length].reshape(num_chunks, length)).to(model.device)
    losses = [next_token_loss(model, rows).item() * len(rows) for rows in ids.split(16)]
    return sum(losses) / num_chunks


def train_teacher(
    recipe: TeacherRecipe,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    folder: Path,
    device: torch.device,
    compiled: bool,
) -> LlamaForCausalLM:
    """Trains, with checkpoints in ``folder``, and returns the model; resumes where a checkpoint is found."""
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(recipe.config())
    nn.Module.to(model, device)
    loss_of = torch.compile(next_token_loss) if compiled else next_token_loss

    def batch(step: int) -> torch.Tensor:
        return batch_at(train, step, batch_size=recipe.batch_size, length=recipe.length, seed=recipe.seed).to(device)

    def loss(_: int, ids: torch.Tensor) -> BatchLoss:
        value = loss_of(model, ids)
        return BatchLoss(value, ids.numel(), {"loss": value})

    training = Training(
        module=model,
        optimizers=make_optimizers(model, recipe.muon_lr, recipe.adam_lr),
        num_steps=recipe.num_steps,
        schedule=lambda step: warmup_stable_decay(step, recipe.num_steps),
        data=batch,
        loss=loss,
        max_norm=1.0,
        report_every=25,
        checkpoint_every=CHECKPOINT_EVERY,
        evaluate=lambda: {"held_out_loss": held_out_loss(model, held_out, recipe.length, EVALUATED_TOKENS)},
    )
    run_training(training, folder)
    return model


def save_teacher(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes the model as a Hugging Face folder, weights in bfloat16 (what the head is trained against)."""
    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
