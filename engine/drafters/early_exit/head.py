"""Exit heads, and their folders: what turns the hidden state after one of the teacher's first layers into logits.

A norm, a SwiGLU block beside the residual and its own norm; the output matrix is the teacher's and is not stored.
A folder holds ``config.json`` (kind ``specscope-exit-head``) and ``model.safetensors``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from specscope.engine.drafters.eagle3.head import RMSNorm
from specscope.engine.finite import refuse_nonfinite
from specscope.tracer.errors import CheckpointError

KIND = "specscope-exit-head"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class ExitHeadConfig:
    """The shape of an exit head, and where it leaves the teacher."""

    exit_layer: int  # the teacher's layers 0..exit_layer - 1 are run before it
    hidden_size: int
    vocab_size: int
    intermediate_size: int
    rms_norm_eps: float


class ExitHead(nn.Module):
    """What stands between the teacher's layer and the teacher's output matrix."""

    def __init__(self, config: ExitHeadConfig) -> None:
        super().__init__()
        self.config = config
        hidden, inner = config.hidden_size, config.intermediate_size
        self.mlp_norm = RMSNorm(hidden, config.rms_norm_eps)
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.norm = RMSNorm(hidden, config.rms_norm_eps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the teacher's output matrix reads (..., H), of ``hidden`` (..., H) after layer ``exit_layer - 1``."""
        normed = self.mlp_norm(hidden)
        inner = self.down_proj(F.silu(self.gate_proj(normed)) * self.up_proj(normed))
        final: torch.Tensor = self.norm(hidden + inner)
        return final


class ExitHeadFiles(NamedTuple):
    """An exit head and the folder that it was read from."""

    head: ExitHead
    folder: Path


def load_exit_head(folder: Path, *, allow_nonfinite: bool = False) -> ExitHeadFiles:
    """The exit head in ``folder``, in float32.

    Raises:
        CheckpointError: where it is missing or unreadable, or a tensor is missing, unexpected or misshapen, or weights
            are not finite and ``allow_nonfinite`` is off.
    """
    head = ExitHead(_read_config(folder / CONFIG_NAME))
    path = folder / WEIGHTS_NAME
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"no exit head at {folder}: {WEIGHTS_NAME} is missing") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    wanted = head.state_dict()
    problems = [f"missing {', '.join(sorted(wanted.keys() - tensors.keys()))}"] * bool(wanted.keys() - tensors.keys())
    problems += [f"unexpected {', '.join(sorted(tensors.keys() - wanted.keys()))}"] * bool(tensors.keys() - wanted)
    problems += [
        f"{name}: got {list(tensors[name].shape)}, wanted {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit {CONFIG_NAME}: {'; '.join(problems)}")
    head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    if not allow_nonfinite:
        refuse_nonfinite(head, folder)
    return ExitHeadFiles(head.eval(), folder)


def _read_config(path: Path) -> ExitHeadConfig:
    try:
        stated: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no exit head at {path.parent}: {path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    kind = stated.get("kind") if isinstance(stated, dict) else None
    if kind != KIND:
        raise CheckpointError(f"{path}: got kind {kind!r}, wanted {KIND!r}; this folder holds no exit head")
    values: dict[str, Any] = {}
    for field in fields(ExitHeadConfig):
        value, real = stated.get(field.name), field.name == "rms_norm_eps"
        if type(value) not in ((int, float) if real else (int,)) or value <= 0:
            raise CheckpointError(
                f"{path}: {field.name} is {value!r}, wanted a positive {'number' if real else 'integer'}"
            )
        values[field.name] = value
    return ExitHeadConfig(**values)


def save_exit_head(head: ExitHead, folder: Path) -> None:
    """Writes ``head`` as a folder that ``load_exit_head`` reads, its weights as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"kind": KIND, **asdict(head.config)}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, folder / WEIGHTS_NAME)
