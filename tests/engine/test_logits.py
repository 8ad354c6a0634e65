"""Processors along the tree: every slot's logits are what a step-by-step decode of its path would have been given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_models import VOCAB, tiny_models
from support.trees import ragged_trees
from transformers import AutoModelForCausalLM, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from specscope.engine.accept.processors import build_processors, process_tree
from specscope.engine.loop.phases import Decoding
from specscope.engine.loop.session import Session
from specscope.engine.loop.step import argmax_of
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.settings import ProcessorChoice
from specscope.engine.tree.grow import DraftTree
from specscope.engine.tree.tensors import tensorize
from specscope.schemas.manifest import Mode
from specscope.tracer.errors import UsageError

PROMPTS = [[5, 9, 2, 33, 8], [44, 3, 3, 3, 60, 21, 7, 7], list(range(2, 30))]
CHOICES: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 1.7},
    "no-repeat": {"no_repeat_ngram": 2},
    "least": {"min_new_tokens": 12},
    "bad-words": {"bad_words_ids": [[53], [57, 25]]},
    "all": {"repetition_penalty": 1.2, "no_repeat_ngram": 3, "min_new_tokens": 9, "bad_words_ids": [[3]]},
}
#: The same in the words of transformers' generate.
NAMES = {"no_repeat_ngram": "no_repeat_ngram_size"}


def reference(folder: Path, prompt: list[int], choice: dict[str, Any], eos: list[int]) -> list[int]:
    """transformers' own greedy decode with these processors."""
    teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([prompt])
    named = {NAMES.get(name, name): value for name, value in choice.items()}
    with torch.inference_mode():
        output = teacher.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=eos or None,
            **named,
        )
    return [int(token) for token in output[0, len(prompt) :]]


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("mode", ["fused", "eager"])
def test_tokens_are_those_of_transformers_with_the_same_processors(
    teacher_folder: Path, head_folder: Path, name: str, mode: Mode
) -> None:
    # A token that the tiny teacher likes ends the text where that is what the processor is about.
    eos = [53] if "min_new_tokens" in CHOICES[name] else []
    models = tiny_models(teacher_folder, head_folder, mode)
    processors = build_processors(ProcessorChoice(**CHOICES[name]), eos, models.teacher.device)
    session = Session(models.teacher, models.drafter, Decoding(processors=processors), num_rows=len(PROMPTS))
    results = [session.begin(row, TurnRequest(p, StopRules(24, eos, []))) for row, p in enumerate(PROMPTS)]
    running = list(range(len(PROMPTS)))
    while running:
        for row in reversed(session.end_stopped()):
            session.drop_row(row)
            last = running.pop()
            if row < len(running):
                running[row] = last
        if running:
            session.step()
    assert any(r.output_ids != reference(teacher_folder, p, {}, eos) for p, r in zip(PROMPTS, results, strict=True))
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.output_ids == reference(teacher_folder, prompt, CHOICES[name], eos)


@settings(deadline=None, max_examples=50)
@given(ragged_trees(max_rows=2, max_slots=9, vocab=VOCAB), st.integers(1, 6))
def test_each_slot_is_processed_behind_its_own_path(tree: DraftTree, context_length: int) -> None:
    contexts = [list(range(row, row + context_length)) for row in range(len(tree.tokens))]
    tensors = tensorize(tree, [context_length] * len(contexts), int(tree.depths.max()))
    logits = torch.randn(*tensors.token_ids.shape, VOCAB, generator=torch.Generator().manual_seed(1))
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.5)])
    got = process_tree([processors] * len(contexts), contexts, tensors, logits)
    for row, context in enumerate(contexts):
        for slot in range(tree.num_slots[row]):
            path = [slot]
            while path[0]:
                path.insert(0, int(tree.parents[row, path[0]]))
            ids: Any = torch.tensor([[*context, *tree.tokens[row, path].tolist()]])
            assert torch.equal(got[row, slot], processors(ids, logits[row, slot][None])[0])
        assert torch.equal(got[row, tree.num_slots[row] :], logits[row, tree.num_slots[row] :])


def test_nothing_asked_for_is_nothing_done() -> None:
    assert build_processors(ProcessorChoice(), [0], torch.device("cpu")) is None


def test_a_value_that_transformers_refuses_is_refused() -> None:
    with pytest.raises(UsageError, match="penalty"):
        build_processors(ProcessorChoice(repetition_penalty=-1.0), [0], torch.device("cpu"))


@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_the_best_token_is_the_first_of_equal_ones_and_nan_where_there_is_one(seed: int, dtype: torch.dtype) -> None:
    logits = torch.randint(0, 5, (2, 3, 40), generator=torch.Generator().manual_seed(seed)).to(dtype)
    logits[0, 1] = -float("inf")
    logits[1, 2, 7] = float("nan")
    best = argmax_of(logits).tolist()
    for row, slots in enumerate(logits.tolist()):
        for slot, values in enumerate(slots):
            wanted = 7 if (row, slot) == (1, 2) else values.index(max(values))
            assert best[row][slot] == wanted
