"""Trains an exit head on text of the teacher's own: soft cross-entropy to the teacher over its whole vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from specscope.engine.drafters.early_exit.head import ExitHead, ExitHeadConfig
from specscope.engine.lab.training.loop import BatchLoss, Training, train
from specscope.engine.lab.training.schedule import rows_at, warmup_stable_decay
from specscope.engine.lab.training.teacher import make_optimizers

CHECKPOINT_EVERY = 100  # updates


@dataclass(frozen=True, kw_only=True)
class ExitHeadRecipe:
    """Everything that decides the exit head's weights, except for the data and the teacher."""

    exit_layer: int = 4
    intermediate_size: int = 768
    num_steps: int = 800
    sharp_from: int = 400  # from this update on, targets are sharpened, as the EAGLE-3 head's are
    sharp_temperature: float = 0.5
    batch_size: int = 12
    muon_lr: float = 1e-2
    adam_lr: float = 2e-3
    seed: int = 5


class ExitLoss(NamedTuple):
    """The loss, and how often the head's choice was the teacher's."""

    loss: torch.Tensor
    agreement: torch.Tensor


def new_exit_head(recipe: ExitHeadRecipe, teacher: LlamaForCausalLM) -> ExitHead:
    """A head for ``teacher``: the block begins as nothing, the last norm as the teacher's own."""
    c: Any = teacher.config
    shape = ExitHeadConfig(
        exit_layer=recipe.exit_layer,
        hidden_size=c.hidden_size,
        vocab_size=c.vocab_size,
        intermediate_size=recipe.intermediate_size,
        rms_norm_eps=c.rms_norm_eps,
    )
    head = ExitHead(shape)
    with torch.no_grad():
        head.down_proj.weight.zero_()
        head.norm.weight.copy_(teacher.model.norm.weight)
    return head


def exit_loss(head: ExitHead, teacher: LlamaForCausalLM, ids: torch.Tensor, temperature: float) -> ExitLoss:
    """The loss on ``ids`` (B, T), the teacher's distribution taken at ``temperature``."""
    with torch.no_grad():
        output = teacher(ids, use_cache=False, output_hidden_states=True)
        wanted = output.logits.float()  # (B, T, V)
    final = head(output.hidden_states[head.config.exit_layer].float())
    logprobs = torch.log_softmax(teacher.lm_head(final).float(), dim=-1)
    entropy = -(torch.softmax(wanted / temperature, dim=-1) * logprobs).sum(-1)
    return ExitLoss(entropy.mean(), (logprobs.argmax(-1) == wanted.argmax(-1)).float().mean().detach())


def train_exit_head(
    recipe: ExitHeadRecipe,
    teacher: LlamaForCausalLM,
    rows: NDArray[np.int64],
    folder: Path,
    device: torch.device,
) -> ExitHead:
    """Trains on ``rows`` (num, T), with checkpoints in ``folder``; resumes where one is found."""
    torch.manual_seed(recipe.seed)
    head = new_exit_head(recipe, teacher).to(device)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)

    def loss(step: int, ids: torch.Tensor) -> BatchLoss:
        result = exit_loss(head, teacher, ids, recipe.sharp_temperature if step >= recipe.sharp_from else 1.0)
        return BatchLoss(result.loss, ids.numel(), {"loss": result.loss, "agree": result.agreement})

    training = Training(
        module=head,
        optimizers=make_optimizers(head, recipe.muon_lr, recipe.adam_lr),
        num_steps=recipe.num_steps,
        schedule=lambda step: warmup_stable_decay(step, recipe.num_steps),
        data=lambda step: rows_at(rows, step, recipe.batch_size, recipe.seed).to(device),
        loss=loss,
        max_norm=0.5,
        report_every=25,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    train(training, folder)
    return head.float()
