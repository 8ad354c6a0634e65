"""Whole decodings with any drafter, alone and side by side, traced where wanted."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from specscope.engine.drafters.base import DraftPairs
from specscope.engine.load.models import load_models
from specscope.engine.loop.phases import StepResult
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import ModelChoice, Settings
from specscope.engine.tree.grow import DraftTree
from specscope.tracer.oracle.check import check_trace
from support.tiny_models import POLICY, reference_generate

PROMPTS = [
    Prompt("short", ids=(5, 9, 2)),
    Prompt("one", ids=(44,)),
    Prompt("repeats", ids=(44, 3, 3, 3, 60, 21, 7, 7)),
    Prompt("long", ids=tuple(range(3, 40))),
]
TOKENS = 16


def choice_of(teacher: Path | str, drafter: str, mode: Any = "fused", **more: Any) -> ModelChoice:
    """Float32 on the CPU, with the tiny models' policy unless another is given."""
    return ModelChoice(
        teacher=str(teacher),
        drafter=drafter,
        mode=mode,
        dtype="float32",
        device="cpu",
        policy=more.pop("policy", POLICY),
        **more,
    )


@cache
def teachers_own(teacher: Path) -> dict[str, list[int]]:
    """The teacher's greedy continuation of each prompt, by its id."""
    return {p.id: reference_generate(teacher, list(p.ids), TOKENS) for p in PROMPTS}


def decode(
    choice: ModelChoice, trace: Path, batch_size: int = 1, strategy: str = "in-place", prompts: list[Prompt] = PROMPTS
) -> dict[str, list[int]]:
    """The output of each prompt, by its id; the trace that was recorded must pass the oracle."""
    target = TraceTarget(trace, "decisions", True, False)
    settings = Settings(choice=choice, max_new_tokens=TOKENS, seed=7, batch_size=batch_size, cache_strategy=strategy)
    request = RunRequest(settings, prompts, target)
    models = load_models(choice)
    outputs = {r.prompt_id: r.result.output_ids for r in run_turns(request, models, open_trace(request, models, print))}
    report = check_trace(trace)
    assert (report.num_violations, report.num_turns) == (0, len(prompts))
    return outputs


def decode_turn(session: Session, context: list[int], tokens: int = TOKENS) -> list[StepResult]:
    """The steps of one turn in a session of one row; no end-of-text token ends it."""
    return list(session.decode(context, StopRules(tokens, [], [])))


def first_pairs(context: list[int], pending: int) -> DraftPairs:
    """What a drafter without features is fed in the first step behind ``context``."""
    tokens = [*context[1:], pending]
    return DraftPairs(list(range(len(tokens))), torch.zeros(len(tokens), 0), torch.tensor(tokens), tokens)


def path_tokens(tree: DraftTree, row: int, slot: int) -> list[int]:
    """The drafted tokens from the root's child down to ``slot``."""
    tokens: list[int] = []
    while slot:
        tokens.insert(0, int(tree.tokens[row, slot]))
        slot = int(tree.parents[row, slot])
    return tokens


def check_tree(tree: DraftTree) -> None:
    """Parents first, siblings distinct, depths and scores follow the parent, padding as agreed."""
    for row, count in enumerate(tree.num_slots):
        tokens, parents, depths = (t[row].tolist() for t in (tree.tokens, tree.parents, tree.depths))
        assert (parents[0], depths[0]) == (0, 0)
        assert all(parents[slot] < slot for slot in range(1, count))
        assert all(depths[slot] == depths[parents[slot]] + 1 for slot in range(1, count))
        assert len({(parents[slot], tokens[slot]) for slot in range(1, count)}) == count - 1
        assert tokens[count:] == [tokens[0]] * (len(tokens) - count)
        assert not any(parents[count:] + depths[count:])
        torch.testing.assert_close(tree.scores[row, 1:], (tree.scores[row][tree.parents[row]] + tree.logprobs[row])[1:])
