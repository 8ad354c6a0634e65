"""Line 1 of a trace: what ran, with what, and what this engine records."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal, NamedTuple

import torch

from specscope.engine.drafters.base import Drafter
from specscope.engine.stopping import StopRules
from specscope.engine.teacher import Teacher
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

    mode: Literal["fused", "eager", "baseline"]
    attention: str
    dtype: str
    seed: int
    level: TraceLevel
    rules: StopRules
    fault: str | None


def build_manifest(run_id: str, settings: RunSettings, teacher: Teacher, drafter: Drafter) -> Manifest:
    """Line 1 of the trace."""
    device = teacher.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    policy = drafter.policy
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
        mode=settings.mode,
        attention=settings.attention,
        dtype=settings.dtype,
        device=Device(
            backend=device.type, name=name, num_threads=torch.get_num_threads() if device.type == "cpu" else None
        ),
        teacher=teacher.manifest(),
        drafter=drafter.manifest(),
        tokenizer=teacher.tokenizer_manifest(),
        tree_policy=TreePolicy(
            kind="dynamic" if policy.kind == "dynamic" else "none",
            depth=policy.depth,
            top_k=policy.top_k,
            budget=policy.budget,
        ),
        sampling=Sampling(rule="greedy"),
        stop_rules=StopRulesManifest(
            max_new_tokens=settings.rules.max_new_tokens,
            eos_token_ids=settings.rules.eos_token_ids,
            stop_strings=settings.rules.stop_strings,
        ),
        seed=settings.seed,
        level=settings.level,
        capabilities=CAPABILITIES,
        fault=settings.fault,
    )
