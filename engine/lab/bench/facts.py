"""What a report states of its run: settings, device, versions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from specscope.engine.lab.bench.measure import Plan
from specscope.engine.lab.bench.report import RunFacts
from specscope.engine.load.models import resolve_device
from specscope.engine.settings import ModelChoice

PACKAGES = ("specscope", "torch", "transformers")


def use_local_device(environment: Mapping[str, str]) -> None:
    """Makes the accelerator current that ``LOCAL_RANK`` names, where there are several."""
    if torch.accelerator.is_available():
        number = int(environment.get("LOCAL_RANK", "0"))
        torch.accelerator.set_device_index(number % torch.accelerator.device_count())


def run_facts(plan: Plan, *, compare: str, prompts: str, num_ranks: int = 1) -> RunFacts:
    """The facts of ``plan``, whose prompts are those of ``prompts``."""
    return RunFacts(
        compare=compare,
        variants=tuple(variant.name for variant in plan.variants),
        prompts=prompts,
        num_prompts=len(plan.prompts),
        num_turns=sum(prompt.num_turns for prompt in plan.prompts),
        rounds=plan.rounds,
        clock=plan.clock,
        max_new_tokens=plan.settings.max_new_tokens,
        num_ranks=num_ranks,
        **measured_by(plan.settings.choice),
    )


def measured_by(choice: ModelChoice) -> dict[str, Any]:
    """By what models and on what: the facts that every kind of measurement states."""
    return {
        "teacher": choice.teacher,
        "drafter": choice.drafter,
        "device": resolve_device(choice.device).type,
        "dtype": choice.dtype,
        "num_threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in PACKAGES},
    }
