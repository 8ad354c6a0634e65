"""Rows side by side: each row's tokens are its own single run's, and a step waits for the device once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.host_reads import HostReads
from support.tiny_models import reference_generate, tiny_models

from specscope.engine.cache.strategies import STRATEGIES
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop import step
from specscope.engine.loop.phases import Decoding
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import ModelChoice, SamplingRule, Settings
from specscope.engine.tree import grow
from specscope.engine.tree.policy import TreePolicy, parse_policy
from specscope.tracer.oracle.check import check_trace

POLICY = TreePolicy(kind="dynamic", depth=4, top_k=3, budget=9)
PROMPTS = [
    Prompt("short", ids=(5, 9, 2)),
    Prompt("long", ids=tuple(range(3, 40))),
    Prompt("one", ids=(44,)),
    Prompt("repeats", ids=(44, 3, 3, 3, 60, 21, 7, 7)),
    Prompt("middling", ids=tuple(range(50, 30, -1))),
]
LENGTHS = {"short": 17, "long": 5, "one": 30, "repeats": 11, "middling": 23}


def decode(
    models: Models, choice: ModelChoice, batch_size: int, strategy: str = "in-place", trace: Path | None = None
) -> dict[str, list[int]]:
    target = TraceTarget(trace, "decisions", False, False) if trace else None
    settings = Settings(choice=choice, max_new_tokens=20, seed=7, batch_size=batch_size, cache_strategy=strategy)
    request = RunRequest(settings, PROMPTS, target)
    reports = run_turns(request, models, open_trace(request, models, warn=print))
    return {report.prompt_id: report.result.output_ids for report in reports}


def choice_of(teacher: Path, head: Path, mode: Any = "fused", **more: Any) -> ModelChoice:
    return ModelChoice(
        teacher=str(teacher),
        drafter=f"eagle3:{head}",
        mode=mode,
        dtype="float32",
        device="cpu",
        policy=more.pop("policy", POLICY),
        **more,
    )


@pytest.mark.parametrize("mode", ["fused", "eager"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rows_tokens_are_those_of_its_own_single_run(
    teacher_folder: Path, head_folder: Path, tmp_path: Path, mode: str, strategy: str
) -> None:
    choice = choice_of(teacher_folder, head_folder, mode)
    models = load_models(choice)
    wanted = {p.id: reference_generate(teacher_folder, list(p.ids), 20) for p in PROMPTS}
    for batch_size in (1, 2, 5):
        trace = tmp_path / f"{batch_size}.jsonl"
        assert decode(models, choice, batch_size, strategy, trace) == wanted
        assert check_trace(trace).num_violations == 0


@pytest.mark.parametrize(
    ("rule", "tree"),
    [
        (SamplingRule("sampling", temperature=0.8), "dynamic"),
        (SamplingRule("sampling", temperature=1.2, top_k=30, top_p=0.95), "static:bush-16"),
        (SamplingRule("sampling", temperature=0.8, draft="sampled"), "chain"),
        (SamplingRule("sampling", temperature=0.8, draft="sampled"), "static:pair-6"),
        (SamplingRule("typical", temperature=0.8), "dynamic"),
    ],
    ids=["best", "best-static", "drawn-chain", "drawn-static", "typical"],
)
def test_what_a_row_draws_does_not_hang_on_its_neighbours(
    teacher_folder: Path, head_folder: Path, tmp_path: Path, rule: SamplingRule, tree: str
) -> None:
    choice = choice_of(teacher_folder, head_folder, policy=parse_policy(tree, 4, 3, 9), rule=rule)
    models = load_models(choice)
    alone = decode(models, choice, 1, trace=tmp_path / "1.jsonl")
    assert alone == decode(models, choice, 1)  # the same seed, the same tokens
    assert alone == decode(models, choice, 3, trace=tmp_path / "3.jsonl")
    for name in ("1", "3"):
        assert check_trace(tmp_path / f"{name}.jsonl").num_violations == 0
    greedy = decode(models, choice_of(teacher_folder, head_folder), 1)
    assert alone != greedy


def test_rows_end_at_different_steps_and_their_places_are_taken(teacher_folder: Path, head_folder: Path) -> None:
    """Rows of unlike lengths are dropped one after another; the last row always takes the free number."""
    models = tiny_models(teacher_folder, head_folder)
    session = Session(models.teacher, models.drafter, num_rows=len(PROMPTS))
    running = [p.id for p in PROMPTS]
    results = {
        p.id: session.begin(row, TurnRequest(list(p.ids), StopRules(LENGTHS[p.id], [], [])))
        for row, p in enumerate(PROMPTS)
    }
    while running:
        session.step()
        for row in reversed(session.end_stopped()):
            session.drop_row(row)
            last = running.pop()
            if row < len(running):
                running[row] = last
    for prompt in PROMPTS:
        wanted = reference_generate(teacher_folder, list(prompt.ids), LENGTHS[prompt.id])
        assert results[prompt.id].output_ids == wanted


def test_a_row_that_is_free_takes_a_second_turn_while_others_run(teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    session = Session(models.teacher, models.drafter, num_rows=2)
    rules = StopRules(12, [], [])
    other = session.begin(1, TurnRequest(list(PROMPTS[1].ids), StopRules(90, [], [])))
    context = list(PROMPTS[0].ids)
    for more in ([4, 4], [30], [9, 9, 1]):
        own = session.begin(0, TurnRequest(context, rules))
        while session.rows[0].turn is not None and session.rows[1].turn is not None:
            session.step()
            session.end_stopped()
        assert own.output_ids == reference_generate(teacher_folder, context, 12)
        context = context + own.output_ids + more
    assert other.output_ids == reference_generate(teacher_folder, list(PROMPTS[1].ids), 90)[: len(other.output_ids)]


RULES = {
    "greedy": SamplingRule("greedy"),
    "sampling": SamplingRule("sampling"),
    "drawn": SamplingRule("sampling", draft="sampled"),
    "typical": SamplingRule("typical"),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_step_waits_for_the_device_once(
    teacher_folder: Path, head_folder: Path, monkeypatch: pytest.MonkeyPatch, rule: str, num_rows: int
) -> None:
    """As if the tensors lay on a device: what is read at once on the host must not be read there."""
    for module in (grow, step):
        monkeypatch.setattr(module, "lies_on_host", lambda tensor: False)
    tree = "chain" if rule == "drawn" else "dynamic"
    choice = choice_of(teacher_folder, head_folder, policy=parse_policy(tree, 4, 3, 9), rule=RULES[rule])
    models = load_models(choice)
    session = Session(models.teacher, models.drafter, Decoding(rule=RULES[rule], checks="deferred"), num_rows)
    for row in range(num_rows):
        session.begin(row, TurnRequest(list(PROMPTS[row].ids), StopRules(60, [], []), generator_seed=row))
    session.step()  # the first one takes whole prompts in
    for _ in range(3):
        with HostReads() as reads:
            session.step()
        assert +reads.seen == Counter({"tolist": 1})


def test_the_counter_of_waits_counts() -> None:
    values = torch.arange(4)
    with HostReads() as reads:
        values.tolist()
        int(values[0])
        bool(values[1] > 0)
        values[values > 2]
        values.nonzero()
    assert reads.seen["tolist"] == 1
    assert reads.seen["__bool__"] == 1
    assert reads.seen["a mask as index"] == 1
    assert reads.seen["nonzero"] == 1
    assert reads.seen["__int__"] == 1
