"""Line 1 of a trace: what ran, with what, and what this engine records."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal, NamedTuple

import torch

from specscope.engine.accept.processors import Processors
from specscope.engine.decode.stopping import StopRules
from specscope.engine.digests import digest_parameters
from specscope.engine.drafters.base import Drafter
from specscope.engine.load.models import ModelChoice
from specscope.engine.teacher.model import Teacher
from specscope.schemas import SCHEMA_VERSION, Device, Manifest, Sampling, TreePolicy
from specscope.schemas import StopRules as StopRulesManifest

TraceLevel = Literal["decisions", "scores", "tensors"]

CAPABILITIES = [
    "draft",
    "tree",
    "tensors",
    "verify",
    "accept",
    "commit",
    "commit.source_checksums",
    "commit.prefix_before",
    "stop",
    "invariants",
    "timing",
]


class RunSettings(NamedTuple):
    """What a run was asked for; goes into the manifest."""

    choice: ModelChoice
    seed: int | None
    level: TraceLevel
    rules: StopRules
    cache_strategy: str
    batch_size: int
    processors: Processors | None
    fault: str | None


def build_manifest(run_id: str, settings: RunSettings, teacher: Teacher, drafter: Drafter) -> Manifest:
    """Line 1 of the trace."""
    device = teacher.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    policy, choice = drafter.policy, settings.choice
    return Manifest(
        seq=0,
        schema=str(SCHEMA_VERSION),
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine=f"specscope {version('specscope')}",
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
        },
        mode=choice.mode,
        attention=choice.attention,
        dtype=choice.dtype,
        device=Device(
            backend=device.type,
            name=name,
            num_threads=torch.get_num_threads() if device.type == "cpu" else None,
            instructions=cpu_instructions() if device.type == "cpu" else None,
        ),
        teacher=teacher.manifest().model_copy(
            update={"source": choice.teacher or None, "parameters": digest_parameters(teacher.model)}
        ),
        drafter=drafter.manifest().model_copy(
            update={"source": choice.drafter_source or None, "parameters": _own_parameters(drafter)}
        ),
        tokenizer=teacher.tokenizer_manifest(),
        tree_policy=TreePolicy(
            kind=policy.kind,
            depth=policy.depth,
            top_k=policy.top_k,
            budget=policy.budget,
            name=policy.name,
            choices=[list(node) for node in policy.choices] or None,
            adaptive=_drafts_fewer(drafter),
        ),
        sampling=_sampling(settings),
        stop_rules=StopRulesManifest(
            max_new_tokens=settings.rules.max_new_tokens,
            eos_token_ids=settings.rules.eos_token_ids,
            stop_strings=settings.rules.stop_strings,
        ),
        cache_strategy=settings.cache_strategy,
        batch_size=settings.batch_size if settings.batch_size > 1 else None,
        seed=settings.seed,
        level=settings.level,
        capabilities=CAPABILITIES,
        fault=settings.fault,
    )


def cpu_instructions() -> dict[str, str]:
    """The instruction sets that torch's own kernels and oneDNN may use: other ones round otherwise."""
    found = {"torch": torch.backends.cpu.get_cpu_capability()}
    most = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return found | ({"onednn": most} if most else {})


def _own_parameters(drafter: Drafter) -> dict[str, str] | None:
    """Of the drafter's own module; None where it has none."""
    module = drafter.module
    return None if module is None else digest_parameters(module)


def _drafts_fewer(drafter: Drafter) -> bool | None:
    """Whether a step may draft less than the policy allows, as a lookup that finds little; None: nothing is drafted."""
    kind = drafter.manifest().kind
    return None if kind == "none" else kind == "ngram"


def _sampling(settings: RunSettings) -> Sampling:
    rule = settings.choice.rule
    processors = settings.processors.described if settings.processors is not None else None
    if rule.rule == "greedy":
        return Sampling(rule="greedy", lossless=True, processors=processors)
    typical = rule.rule == "typical"
    return Sampling(
        rule=rule.rule,
        lossless=rule.lossless,
        temperature=rule.temperature,
        top_k=rule.top_k,
        top_p=rule.top_p,
        draft=rule.draft,
        epsilon=rule.epsilon if typical else None,
        delta=rule.delta if typical else None,
        processors=processors,
    )
