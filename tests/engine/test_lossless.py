"""The claim that the README makes: on the trained models, every token is the teacher's own."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from specscope.engine.assemble import DEMO_MODELS, ModelChoice, Models, load_models
from specscope.engine.generate import Session
from specscope.engine.stopping import StopRules
from specscope.engine.training.corpus import load_corpus, stdlib_root
from specscope.engine.training.measure import held_out_prompts
from specscope.engine.tree_policy import TreePolicy

NUM_PROMPTS = 64
NEW_TOKENS = 32
SECOND_TURN = "\n\n\ndef test_"


@pytest.fixture(scope="module")
def expected() -> list[list[list[int]]]:
    """Per prompt: context of turn 1, its greedy continuation by transformers, context of turn 2, its continuation."""
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
    for prompt in held_out_prompts(load_corpus(stdlib_root()), NUM_PROMPTS, seed=11):
        first = list(tokenizer(prompt.turns[0]).input_ids)
        one = continuation(first)
        second = first + one + list(tokenizer(SECOND_TURN).input_ids)
        found.append([first, one, second, continuation(second)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fused", "eager"])
def test_every_token_is_the_teachers_own_over_two_turns(mode: str, expected: list[list[list[int]]]) -> None:
    policy = TreePolicy("dynamic", 5, 4, 16)
    models: Models = load_models(ModelChoice("demo", "eagle3", mode, "float32", "cpu", policy))  # type: ignore[arg-type]
    rules = StopRules(NEW_TOKENS, models.teacher.eos_token_ids, [])
    accepted: list[int] = []
    for first, one, second, two in expected:
        session = Session(models.teacher, models.drafter)
        for context, wanted in ((first, one), (second, two)):
            for _ in session.decode(context, rules):
                pass
            assert session.result.output_ids == wanted
            accepted += session.result.accepted_lengths
    assert len(expected) == NUM_PROMPTS
    assert sum(accepted) / len(accepted) > 2, "the draft must really be accepted for this to mean anything"
