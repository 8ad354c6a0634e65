"""Faults of a head's checkpoint, F07 and F08.theta: what goes wrong before anything is decoded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from specscope.engine.drafters.eagle3.files import CONFIG_NAME
from specscope.engine.lab.faults.base import Expectation, Fault
from specscope.engine.load.models import DEMO_MODELS
from specscope.engine.settings import ModelChoice
from specscope.tracer.errors import UsageError

LM_HEAD = "lm_head.weight"


def _copied_head(choice: ModelChoice, folder: Path) -> Path:
    """A copy of the head's folder that may be damaged."""
    kind, _, path = choice.drafter.partition(":")
    if kind != "eagle3":
        raise UsageError(f"the fault goes into an EAGLE-3 head, got drafter {choice.drafter}: use --drafter eagle3")
    source = Path(path) if path else DEMO_MODELS / "drafter"
    return Path(shutil.copytree(source, folder / source.name))


def _weights_changed(
    choice: ModelChoice, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> ModelChoice:
    copy = _copied_head(choice, folder)
    for file in copy.glob("*.safetensors"):
        weights = load_file(file)
        change(weights)
        save_file(weights, file)
    return replace(choice, drafter=f"eagle3:{copy}")


def _without_lm_head(choice: ModelChoice, folder: Path) -> ModelChoice:
    return _weights_changed(choice, folder, lambda weights: _drop(weights, LM_HEAD))


def _drop(weights: dict[str, torch.Tensor], name: str) -> None:
    weights.pop(name, None)


def _random_lm_head(choice: ModelChoice, folder: Path) -> ModelChoice:
    def change(weights: dict[str, torch.Tensor]) -> None:
        if LM_HEAD in weights:
            honest = weights[LM_HEAD]
            noise = torch.randn(honest.shape, generator=torch.Generator().manual_seed(0))
            weights[LM_HEAD] = (noise * honest.float().std()).to(honest.dtype)

    return _weights_changed(choice, folder, change)


def _other_theta(choice: ModelChoice, folder: Path) -> ModelChoice:
    copy = _copied_head(choice, folder)
    file = copy / CONFIG_NAME
    config = json.loads(file.read_text(encoding="utf-8"))
    config["rope_theta"] = 100 * config.get("rope_theta", 10000.0)
    config.pop("rope_parameters", None)
    file.write_text(json.dumps(config), encoding="utf-8")
    return replace(choice, drafter=f"eagle3:{copy}")


CHECKPOINT_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F07.missing-key",
        says="the head's checkpoint has no lm_head",
        expect=Expectation("refused", says="lm_head"),
        damage=_without_lm_head,
        into_eagle3=True,
    ),
    Fault(
        id="F07.random-head",
        says="the head's lm_head was never loaded: random weights",
        expect=Expectation("incomparable", says="drafter.weights_digest"),
        damage=_random_lm_head,
        into_eagle3=True,
    ),
    Fault(
        id="F08.theta",
        says="the head rotates by another theta",
        expect=Expectation("incomparable", says="drafter.rope_theta"),
        damage=_other_theta,
        into_eagle3=True,
    ),
)
