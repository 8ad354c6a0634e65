"""The one training loop, of the teacher and of both heads: update, report, checkpoint, evaluate.

Everything that an update reads is a function of its number, so that a run that was interrupted continues from its last
checkpoint to the very weights of one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from specscope.engine.lab.training.checkpoint import load_checkpoint, save_checkpoint
from specscope.engine.lab.training.schedule import ProgressLog, set_learning_rate

Batch = TypeVar("Batch")


class BatchLoss(NamedTuple):
    """What one update descends."""

    loss: torch.Tensor  # a scalar
    num_tokens: int  # trained on
    report: Mapping[str, torch.Tensor | float]  # scalars for the log, read only where there is a report


@dataclass(frozen=True, kw_only=True)
class Training(Generic[Batch]):
    """What is trained, on what, and how."""

    module: nn.Module
    optimizers: list[Optimizer]  # their groups state a ``peak_lr``
    num_steps: int
    schedule: Callable[[int], float]  # of the update's number: the factor on the peak learning rate
    data: Callable[[int], Batch]  # of the update's number, and of nothing that a resumed run would not have
    loss: Callable[[int, Batch], BatchLoss]  # of the update's number and its batch; run under bfloat16 autocast
    max_norm: float  # of the gradient, which is clipped to it
    report_every: int  # updates
    checkpoint_every: int  # updates
    evaluate: Callable[[], Mapping[str, float]] | None = None  # after each checkpoint, for the log
    started_from: str | None = None  # digest of the weights that it continues from, for the checkpoints


def train(training: Training[Batch], folder: Path) -> None:
    """Trains ``training.module`` in place, with checkpoints and the log in ``folder``; resumes where it finds one.

    The last update is always reported and kept.
    """
    module, num_steps = training.module, training.num_steps
    first = load_checkpoint(folder, module, training.optimizers)
    log = ProgressLog(folder / "log.jsonl")
    device_type = next(module.parameters()).device.type
    for step in range(first, num_steps):
        set_learning_rate(training.optimizers, training.schedule(step))
        batch = training.data(step)
        with torch.autocast(device_type, dtype=torch.bfloat16):
            result = training.loss(step, batch)
        _update(training, result.loss)
        log.count(result.num_tokens)
        done = step + 1
        if done % training.report_every == 0 or done == num_steps:
            log.report(done, num_steps, **{name: _number(value) for name, value in result.report.items()})
        if done % training.checkpoint_every == 0 or done == num_steps:
            save_checkpoint(folder, done, module, training.optimizers, training.started_from)
            if training.evaluate is not None:
                log.report(done, num_steps, **training.evaluate())


def _number(value: torch.Tensor | float) -> float:
    return float(value.item()) if isinstance(value, torch.Tensor) else value


def _update(training: Training[Batch], loss: torch.Tensor) -> None:
    loss.backward()
    nn.utils.clip_grad_norm_(training.module.parameters(), training.max_norm)
    for optimizer in training.optimizers:
        optimizer.step()
        optimizer.zero_grad()
