"""What to do fits the kind of root: where to look for a structural one, bisect for numbers, nothing for a tie."""

from __future__ import annotations

import pytest
from support.verdicts import near_tie, root_at

from specscope.tracer.report.advice import NOTHING_TO_DO, advice_for
from specscope.tracer.report.sentences import FORMS


@pytest.mark.parametrize(
    ("phase", "field", "words"),
    [
        ("tensors", "mask", "attention mask"),
        ("tensors", "positions", "position ids"),
        ("verify", "top_logits[0]", "Run bisect"),
        ("draft", "levels[2].logprobs", "Run bisect"),
        ("verify", "prefill.top_logits", "the prompt's own forward"),
        ("commit", "source_slots", "rows of the cache are kept"),
        ("commit", "content-moved", "moved within the cache"),
        ("accept", "bonus_token", "bonus token is read from"),
        ("accept", "unheard-of", "walk through the tree"),
    ],
)
def test_where_to_look(phase: str, field: str, words: str) -> None:
    advice = advice_for(root_at(phase=phase, field=field), runs_again=True)
    assert words in advice.do
    assert advice.causes


@pytest.mark.parametrize(
    ("phase", "field", "words", "record"),
    [
        ("verify", "top_logits[0]", "first layer whose hidden states differ", "commit.kv_digests_before"),
        ("draft", "levels[2].logprobs", "what the drafter is fed", "draft.inputs"),
    ],
)
def test_what_no_engine_here_can_run_again_is_looked_for_by_hand(
    phase: str, field: str, words: str, record: str
) -> None:
    root = root_at(phase=phase, field=field)
    advice = advice_for(root, runs_again=False)
    assert words in advice.do
    assert record in advice.do
    assert "Run bisect" not in advice.do
    assert advice.causes == advice_for(root, runs_again=True).causes


def test_where_to_look_in_ones_own_code_is_the_same_for_every_engine() -> None:
    root = root_at(phase="tensors", field="mask")
    assert advice_for(root, runs_again=False) == advice_for(root, runs_again=True)


def test_a_tie_asks_for_nothing() -> None:
    assert advice_for(near_tie(), runs_again=False) == NOTHING_TO_DO
    assert not NOTHING_TO_DO.causes


def test_every_field_that_a_sentence_knows_has_advice_of_its_phase() -> None:
    for spot in FORMS:
        phase, _, field = spot.partition(".")
        advice = advice_for(root_at(phase=phase, field=field), runs_again=True)
        assert advice.do != "Look at how this value is computed.", spot
