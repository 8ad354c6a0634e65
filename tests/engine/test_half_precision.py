"""Verdicts in the dtypes that people run, on the demo models: honest pairs stay silent, faults do not hide behind ties.

Marked ``numbers``: what they see hangs on how this CPU's kernels round, so that CI runs them on other instruction sets,
too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.load.models import DEMO_MODELS, Models, load_models
from specscope.engine.run.prompts import load_prompts
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import GREEDY, ModelChoice, SamplingRule, Settings
from specscope.engine.tree.policy import TreePolicy, parse_policy
from specscope.schemas.verdict import TIES, Verdict
from specscope.tracer.compare import diff_traces
from specscope.tracer.compare.diff import DiffOptions

pytestmark = pytest.mark.numbers

SMALL = TreePolicy(kind="dynamic", depth=5, top_k=4, budget=16)
KINDS = {
    "16 nodes": (SMALL, GREEDY),
    "60 nodes": (TreePolicy(kind="dynamic", depth=6, top_k=10, budget=60), GREEDY),
    "drawn tokens": (SMALL, SamplingRule("sampling", temperature=0.8, top_p=0.9)),
    "drawn drafts": (
        parse_policy("static:bush-16", 1, 1, 1),
        SamplingRule("sampling", temperature=0.8, draft="sampled"),
    ),
}


@lru_cache(maxsize=4)
def loaded(choice: ModelChoice) -> Models:
    return load_models(choice)


@contextmanager
def block_off(models: Models, size: float, layer: int = 3) -> Iterator[None]:
    """Inside, one feed-forward block's output is ``1 + size`` times what it should be, rounded once."""

    def scale(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return (output.float() * (1 + size)).to(output.dtype)

    teacher: Any = models.teacher.model
    handle = teacher.model.layers[layer].mlp.register_forward_hook(scale)
    try:
        yield
    finally:
        handle.remove()


class Recorded:
    """Runs of the demo models on their own prompts, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, name: str, mode: str, dtype: str, kind: str = "16 nodes", size: float = 0.0, **changes: Any
    ) -> Path:
        path = self.folder / f"{name}.jsonl"
        policy, rule = KINDS[kind]
        wanted: Any = mode
        choice = ModelChoice(
            teacher="demo", drafter="eagle3", mode=wanted, dtype=dtype, device="cpu", policy=policy, rule=rule
        )
        prompts = load_prompts(DEMO_MODELS / "prompts.jsonl")[: changes.pop("num_prompts", 4)]
        settings = Settings(choice=choice, max_new_tokens=32, **changes)
        request = RunRequest(settings, prompts, TraceTarget(path))
        models = loaded(choice)
        fault = find_fault(settings.fault) if settings.fault is not None else None
        with block_off(models, size):
            writer = open_trace(request, models, warn=pytest.fail)
            list(run_turns(request, models, writer, change=injecting(fault)))
        return path


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def real_roots(verdict: Verdict) -> list[str]:
    found = [root.difference for root in verdict.roots if root.difference.kind not in TIES]
    return [f"{one.phase}: {one.field}: {one.a} | {one.b}" for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_honest_pair_is_never_red(recorded: Recorded, dtype: str, kind: str) -> None:
    a, b = (recorded(mode, mode, dtype, kind) for mode in ("eager", "fused"))
    side_by_side = recorded("rows", "fused", dtype, kind, batch_size=3)
    for pair in ((a, b), (a, side_by_side), (b, side_by_side)):
        verdict = diff_traces(*pair)
        assert (verdict.exit_code, real_roots(verdict), verdict.violations) == (0, [], [])
    assert diff_traces(a, side_by_side, DiffOptions(noise=b)).exit_code == 0


def test_the_same_run_twice_leaves_the_same_bits(recorded: Recorded) -> None:
    first, again = (recorded(name, "fused", "bfloat16", num_prompts=2) for name in ("first", "again"))
    baseline = recorded("eager", "eager", "bfloat16", num_prompts=2)
    assert diff_traces(first, again).verdict == "equal"
    assert diff_traces(baseline, again, DiffOptions(noise=first)).exit_code == 0


def test_what_float32_finds_at_three_in_ten_thousand_bfloat16_finds_at_three_in_a_hundred_with_a_good_run(
    recorded: Recorded,
) -> None:
    exact = recorded("exact", "eager", "float32")
    slightly_off = recorded("slightly-off", "fused", "float32", size=3e-4)
    verdict = diff_traces(exact, slightly_off)
    assert (verdict.exit_code, len(real_roots(verdict)), verdict.impact.tokens_equal) == (1, 1, True)
    assert verdict.roots[0].drift is not None

    baseline, good = (recorded(f"half-{mode}", mode, "bfloat16") for mode in ("eager", "fused"))
    off = recorded("half-off", "fused", "bfloat16", size=3e-2)
    alone, measured = diff_traces(baseline, off), diff_traces(baseline, off, DiffOptions(noise=good))
    assert measured.exit_code == 1
    assert measured.roots[0].drift is not None
    # What shows first is the teacher's: its logits, or the features of its layers as the drafter is fed them.
    first = measured.roots[0].difference
    assert first.phase == "verify" or (first.phase, first.field.partition("[")[0]) == ("draft", "inputs.hidden_norms")
    assert alone.exit_code == 1 or (alone.sensitivity or 1) > 1e-3, "or else the card says how blind it is"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_structural_fault_is_placed_and_blamed_whatever_the_dtype_hides(recorded: Recorded, dtype: str) -> None:
    baseline = recorded("eager", "eager", dtype, num_prompts=2)
    broken = recorded("broken", "fused", dtype, num_prompts=2, fault="F16")
    verdict = diff_traces(baseline, broken)
    first = next(root for root in verdict.roots if root.difference.kind not in TIES)
    assert (first.difference.phase, first.difference.field, first.wrong) == ("tensors", "positions", "candidate")


def test_parameters_that_were_loaded_otherwise_are_named(recorded: Recorded) -> None:
    honest = recorded("honest", "eager", "float32", num_prompts=1)
    policy, rule = KINDS["16 nodes"]
    models = load_models(
        ModelChoice(
            teacher="demo", drafter="eagle3", mode="fused", dtype="float32", device="cpu", policy=policy, rule=rule
        )
    )
    head: Any = models.drafter.module
    with torch.no_grad():  # the files are right, and one norm landed in the place of another
        names = [name for name, value in head.named_parameters() if value.ndim == 1]
        first, second = (head.get_parameter(name) for name in names[:2])
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)
    choice = ModelChoice(
        teacher="demo", drafter="eagle3", mode="fused", dtype="float32", device="cpu", policy=policy, rule=rule
    )
    swapped = recorded.folder / "swapped.jsonl"
    prompts = load_prompts(DEMO_MODELS / "prompts.jsonl")[:1]
    request = RunRequest(Settings(choice=choice, max_new_tokens=32), prompts, TraceTarget(swapped))
    list(run_turns(request, models, open_trace(request, models, warn=pytest.fail)))
    verdict = diff_traces(honest, swapped)
    assert verdict.loaded == sorted(f"drafter {name}" for name in names[:2])
    assert (verdict.verdict, verdict.exit_code) == ("different", 1)
