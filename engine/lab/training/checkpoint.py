"""Resumable training state as safetensors: weights, optimiser tensors and the step. No pickle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

from specscope.tracer.files.whole import written_whole

FILE_NAME = "training_state.safetensors"


def save_checkpoint(
    folder: Path, step: int, module: nn.Module, optimizers: Sequence[Optimizer], started_from: str | None = None
) -> None:
    """Writes the state after ``step`` updates, replacing the earlier one whole. ``started_from`` is the digest of the
    weights that training continued from; None: it began from scratch."""
    tensors = {f"model.{name}": value.detach().clone() for name, value in module.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{index}.{name}"] = torch.as_tensor(value).clone()
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / FILE_NAME) as partial:
        origin = {} if started_from is None else {"started_from": started_from}
        save_file(tensors, partial, metadata={"step": str(step), **origin})


def updates_done(folder: Path) -> int:
    """How many updates the state in ``folder`` is after; 0 where there is none."""
    return int(_notes(folder).get("step", 0))


def started_from(folder: Path) -> str | None:
    """The digest of the weights that the training in ``folder`` continued from; None where it began from scratch."""
    return _notes(folder).get("started_from")


def _notes(folder: Path) -> dict[str, str]:
    """What is noted with the state in ``folder``; nothing where there is none."""
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    with safe_open(path, framework="pt") as stored:
        return dict(stored.metadata())


def load_checkpoint(folder: Path, module: nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """Restores the state in place and returns the number of updates done; 0 where there is no checkpoint."""
    path = folder / FILE_NAME
    if not path.exists():
        return 0
    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    parameters = dict(module.named_parameters())
    with safe_open(path, framework="pt") as stored, torch.no_grad():
        for key in stored.keys():  # noqa: SIM118 (safe_open is no dict)
            value = stored.get_tensor(key)
            if key.startswith("model."):
                parameters[key.removeprefix("model.")].copy_(value)
            else:
                _, number, index, name = key.split(".", 3)
                states[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return updates_done(folder)
