"""One wait a step, counted: whatever drafts, decides and keeps the cache, and what adds a wait by name.

As if every tensor lay on a device. Two counters watch: the calls of the engine, and the operators that torch's own
functions are made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from support.drafting import PROMPTS, choice_of
from support.host_reads import HostReads, OperatorReads
from support.shape_tables import falling

from specscope.engine.guided.grammar import is_installed
from specscope.engine.host import moved, sent
from specscope.engine.load.decoding import decoding_of
from specscope.engine.load.models import load_models
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.settings import GrammarChoice, ModelChoice, ProcessorChoice, SamplingRule, Settings
from specscope.engine.tree.policy import TreePolicy, auto_policy, parse_policy

DRAWN = SamplingRule("sampling", temperature=0.8, draft="sampled")
BLOCK = SamplingRule("block", temperature=0.8, draft="sampled")
CHAIN = parse_policy("chain", 4, 1, 4)
STATIC = parse_policy("static:pair-6", 4, 1, 4)
ONCE = Counter(tolist=1)


@dataclass(frozen=True)
class Way:
    """A way to decode, and what the host waits for in each of its steps."""

    choice: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    waits: Counter[str] = field(default_factory=lambda: ONCE)


WAYS = {
    "eagle3": Way({}),
    "static": Way({"policy": STATIC}),
    "static, drawn": Way({"policy": STATIC, "rule": DRAWN}),
    "block": Way({"policy": CHAIN, "rule": BLOCK}),
    "typical": Way({"rule": SamplingRule("typical")}),
    "window": Way({"drafter_window": 3}),
    "auto": Way({"policy": auto_policy(falling())}),
    "ngram": Way({"drafter": "ngram"}),
    "eagle3+ngram": Way({"drafter": "eagle3+ngram"}),
    "model": Way({"drafter": "model"}),
    "early-exit, static": Way({"drafter": "early-exit", "policy": STATIC}),
    "none": Way({"mode": "baseline"}),
    "paged": Way({}, {"cache": "paged"}),
    "full-reorder": Way({}, {"cache_strategy": "full-reorder"}),
    "replicate": Way({}, {"cache_strategy": "replicate"}),
}
#: How many leaves the widest tree has; what each mask hides, that of the teacher and that of each of the four levels.
MORE_WAITS = {
    "early-exit, dynamic": Way({"drafter": "early-exit"}, waits=ONCE + Counter(__int__=1)),
    "two-part": Way({"kernel": "two-part"}, waits=ONCE + Counter(__bool__=5 * 2, __int__=5)),
}


@pytest.fixture(autouse=True)
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tree.grow", "loop.step"):
        monkeypatch.setattr(f"specscope.engine.{module}.lies_on_host", lambda tensor: False)


def choice_for(way: Way, teacher: Path, head: Path) -> ModelChoice:
    named = {"eagle3": f"eagle3:{head}", "eagle3+ngram": f"eagle3+ngram:{head}", "model": f"model:{teacher}"}
    asked = dict(way.choice)
    drafter = asked.pop("drafter", "eagle3")
    if drafter == "early-exit":  # the demo's head
        teacher = Path("demo")
    return choice_of(teacher, named.get(drafter, drafter), products="plain", **asked)


def waits_of(way: Way, choice: ModelChoice, num_rows: int) -> list[Counter[str]]:
    """What each of a few steps waits for, after one that takes prompts in."""
    models = load_models(choice)
    decoding = decoding_of(Settings(choice=choice, **way.settings), models.teacher)
    session = Session(models.teacher, models.drafter, replace(decoding, checks="deferred"), num_rows)
    for row in range(num_rows):
        session.begin(row, TurnRequest(list(PROMPTS[row].ids), StopRules(60, [], []), generator_seed=row))
    session.step()
    waits = []
    for _ in range(3):
        with HostReads() as reads, OperatorReads() as operators:
            session.step()
        waits.append(+reads.seen)
        assert operators.seen.total() <= sum(count for name, count in reads.seen.items() if name != "tolist")
    return waits


@pytest.mark.parametrize(
    ("name", "num_rows"), [*((name, 3) for name in WAYS | MORE_WAITS), ("eagle3", 1), ("ngram", 1)]
)
def test_a_fused_step_waits_once_and_for_what_else_is_named(
    teacher_folder: Path, head_folder: Path, name: str, num_rows: int
) -> None:
    way = (WAYS | MORE_WAITS)[name]
    waits = waits_of(way, choice_for(way, teacher_folder, head_folder), num_rows)
    assert waits == [way.waits] * len(waits)


def more_waits(choice: ModelChoice, **asked: Any) -> Counter[str]:
    """What one row's step waits for beside the one wait, with these settings."""
    waits = waits_of(Way({}, asked), choice, 1)
    assert waits == [waits[0]] * len(waits)
    return waits[0] - ONCE


def test_processors_and_grammars_read_the_tree_back(teacher_folder: Path, head_folder: Path) -> None:
    choice = choice_for(Way({}), teacher_folder, head_folder)
    assert more_waits(choice, processors=ProcessorChoice(repetition_penalty=1.2))["tolist"] == 1
    if is_installed():
        fixed = choice_of("demo", "eagle3", policy=STATIC, products="plain")
        grammar = GrammarChoice("regex", r"[\x20-\x7e\n]*")
        # Tokens and parents of the tree, and of each level that is drafted below another.
        assert more_waits(fixed, grammar=grammar)["tolist"] == 2 + 2 * (STATIC.depth - 1)


def test_a_tree_that_is_sized_by_what_it_costs_reads_scores_at_each_level(
    teacher_folder: Path, head_folder: Path
) -> None:
    sized = TreePolicy(kind="dynamic", depth=4, top_k=3, budget=9, sizing="measure")
    choice = choice_for(Way({"policy": sized}), teacher_folder, head_folder)
    assert all(waits["tolist"] > 1 for waits in waits_of(Way({}), choice, 1))


@pytest.mark.parametrize(
    ("read", "counted"),
    [
        (lambda: torch.arange(4).sum().item(), Counter(_local_scalar_dense=1)),
        (lambda: torch.equal(torch.arange(4), torch.arange(4)), Counter(equal=1)),
        (lambda: torch.arange(4)[torch.arange(4) > 2], Counter(index=1)),
        (lambda: torch.arange(4).repeat_interleave(torch.arange(4)), Counter(repeat_interleave=1)),
        (lambda: torch.arange(4)[torch.tensor([1, 2])], Counter()),
    ],
)
def test_the_counter_of_operators_counts(read: Callable[[], object], counted: Counter[str]) -> None:
    with OperatorReads() as operators:
        read()
    assert operators.seen == counted


def test_what_is_sent_in_a_copy_that_waits_is_counted() -> None:
    device, here = torch.device("cpu"), torch.rand(3, generator=torch.Generator())
    values = torch.arange(4)
    sends: list[Callable[[], object]] = [
        lambda: torch.tensor([1, 2], device=device),
        lambda: values[[1, 2]],
        lambda: torch.rand(3, generator=torch.Generator()).to(device),
    ]
    for send in sends:
        with HostReads() as reads:
            send()
        assert +reads.seen == Counter(sent=1)
    with HostReads() as reads:
        sent([1, 2], device)
        moved(here, device)
    assert not +reads.seen


def test_a_copy_to_cuda_is_from_pinned_memory_and_does_not_wait() -> None:
    tensor = MagicMock(spec=torch.Tensor)
    there = moved(tensor, torch.device("cuda:1"))
    tensor.pin_memory.assert_called_once_with()
    tensor.pin_memory().to.assert_called_once_with(torch.device("cuda:1"), non_blocking=True)
    assert there is tensor.pin_memory().to()
    moved(tensor, torch.device("xpu"))
    tensor.to.assert_called_once_with(torch.device("xpu"))
