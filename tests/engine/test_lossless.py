"""The claim that the README makes: on the trained models, every token is the teacher's own, however it was drafted."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from specscope.engine.lab.training.corpus import load_corpus, stdlib_root
from specscope.engine.lab.training.measure import held_out_prompts
from specscope.engine.load.models import DEMO_MODELS, load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, run_turns
from specscope.engine.settings import ModelChoice, Settings
from specscope.engine.tree.policy import parse_policy
from specscope.schemas.manifest import Mode

NUM_PROMPTS = 64
NEW_TOKENS = 32
SECOND_TURN = "\n\n\ndef test_"


class Conversed(NamedTuple):
    """A held-out prompt of two turns, and what transformers' own greedy decode says to each."""

    prompt: Prompt
    replies: list[list[int]]


@pytest.fixture(scope="module")
def expected() -> list[Conversed]:
    teacher = AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "teacher", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODELS / "teacher")

    def continuation(context: list[int]) -> list[int]:
        ids = torch.tensor([context])
        with torch.inference_mode():
            out = teacher.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
            )
        return [int(t) for t in out[0, len(context) :]]

    found = []
    for number, prompt in enumerate(held_out_prompts(load_corpus(stdlib_root()), NUM_PROMPTS, seed=11)):
        first = list(tokenizer(prompt.turns[0]).input_ids)
        one = continuation(first)
        two = continuation([*first, *one, *tokenizer(SECOND_TURN).input_ids])
        found.append(Conversed(Prompt(f"prompt-{number}", turns=(prompt.turns[0], SECOND_TURN)), [one, two]))
    return found


class Way(NamedTuple):
    """A way to decode, and on how many of the prompts it is tried."""

    mode: Mode
    drafter: str = "eagle3"
    tree: str = "dynamic"
    batch_size: int = 1
    cache_strategy: str = "in-place"
    num_prompts: int = NUM_PROMPTS
    accepted: float = 2.0  # at least: the draft must really be accepted for equality to mean anything


WAYS = {
    "fused": Way("fused"),
    "eager": Way("eager"),
    "fused, 8 rows": Way("fused", batch_size=8),
    "eager, 3 rows": Way("eager", batch_size=3, num_prompts=16),
    "chain": Way("fused", tree="chain", batch_size=4, num_prompts=16, accepted=1.5),
    "static tree": Way("fused", tree="static:bush-16", batch_size=4, num_prompts=16),
    "fast-reorder": Way("fused", batch_size=4, cache_strategy="fast-reorder", num_prompts=16),
    "full-reorder": Way("fused", batch_size=4, cache_strategy="full-reorder", num_prompts=16),
    "replicate": Way("fused", batch_size=4, cache_strategy="replicate", num_prompts=16),
    "ngram": Way("fused", "ngram", batch_size=4, num_prompts=16, accepted=0.3),
    "early-exit": Way("fused", "early-exit", "chain", num_prompts=16, accepted=0.5),
    "early-exit, eager": Way("eager", "early-exit", num_prompts=8, accepted=0.5),
    "model": Way("fused", "model:demo", "chain", batch_size=2, num_prompts=8, accepted=4.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_every_token_is_the_teachers_own_over_two_turns(name: str, expected: list[Conversed]) -> None:
    assert len(expected) == NUM_PROMPTS
    way, tried = WAYS[name], expected[: WAYS[name].num_prompts]
    policy = parse_policy(way.tree, depth=5, top_k=4, budget=16)
    choice = ModelChoice(
        teacher="demo", drafter=way.drafter, mode=way.mode, dtype="float32", device="cpu", policy=policy
    )
    settings = Settings(
        choice=choice,
        max_new_tokens=NEW_TOKENS,
        batch_size=way.batch_size,
        cache_strategy=way.cache_strategy,
    )
    request = RunRequest(settings, [conversed.prompt for conversed in tried])
    reports = list(run_turns(request, load_models(choice), None))
    got = {(report.prompt_id, report.prompt_turn): report.result.output_ids for report in reports}
    assert got == {(c.prompt.id, turn): reply for c in tried for turn, reply in enumerate(c.replies)}
    accepted = [length for report in reports for length in report.result.accepted_lengths]
    assert sum(accepted) / len(accepted) > way.accepted
    assert not any(report.result.num_fallbacks for report in reports)
