"""The headline's sentence: who is wrong and what it did, or how the two part; and what would have decided."""

from __future__ import annotations

from typing import Any

import pytest
from support.traces import EAGER, FAULTY, FUSED
from support.verdicts import root_at, verdict_of

from specscope.schemas import Step
from specscope.schemas.verdict import Blame, Root
from specscope.tracer.compare.deciding import with_deciding
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.naming.places import turns_name
from specscope.tracer.naming.text import counted
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.report.card import card_of, compared_text, root_line
from specscope.tracer.report.report import Report
from specscope.tracer.report.sentences import FORMS, root_sentence
from specscope.tracer.report.sizes import size_row
from specscope.tracer.report.values import same_texts

IDS = same_texts(TokenTexts(None))


def unblamed(**changes: Any) -> Root:
    return root_at(**changes).model_copy(update={"blame": [], "wrong": "neither"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "the candidate rotates node #5 > #7 by position 31, wanted 30"),
        ({"field": "mask", "tokens_a": [], "tokens_b": [[5, 8]]}, "the candidate lets node #5 > #7 see its sibling #8"),
        ({"field": "mask", "tokens_a": [[5]], "tokens_b": []}, "the candidate hides its ancestor #5 from node #5 > #7"),
        (
            {"field": "mask", "tokens_a": [], "tokens_b": [[9], 40]},
            "the candidate lets node #5 > #7 see #9 of another branch and padding column 40",
        ),
        ({"field": "unheard-of"}, "tensors: unheard-of at node #5 > #7 is 30 in the baseline, 31 in the candidate"),
        ({"phase": "commit", "field": "x"}, "commit: x at node #5 > #7 is 30 in the baseline, 31 in the candidate"),
    ],
)
def test_the_accused_side_and_what_it_did(changes: dict[str, Any], sentence: str) -> None:
    assert root_sentence(root_at(**changes), IDS) == sentence


def test_nobody_is_accused_by_an_invariant_of_another_phase() -> None:
    root = root_at(phase="verify", field="argmax", a="5", b="6", tokens_a=[5], tokens_b=[6])
    wanted = "the teacher's choice after node #5 > #7 is #5 in the baseline, #6 in the candidate"
    assert root_sentence(root, IDS) == wanted


def test_lists_are_told_from_where_they_part_and_numbers_by_six_digits() -> None:
    rows: dict[str, Any] = {"phase": "commit", "field": "source_slots", "node": None}
    root = root_at(**rows, a="[0, 1, 2, 12]", b="[0, 1, 2, 13]", tokens_a=[[], [5], [6]], tokens_b=[[], [5], [5, 9]])
    root = root.model_copy(
        update={"blame": [Blame(side="b", invariant="commit.sources-are-path", witness="w")], "wrong": "candidate"}
    )
    assert root_sentence(root, IDS) == "the candidate commits the rows of … #5 > #9, wanted … #6"
    whole = "the list of rows that are kept is root, #5 in the baseline, root, #5, #5 > #9 in the candidate"
    assert root_sentence(unblamed(**rows, tokens_a=[[], [5]], tokens_b=[[], [5], [5, 9]]), IDS) == whole
    short = "the list of rows that are kept is root, #6 in the baseline, root, #5 in the candidate"
    assert root_sentence(unblamed(**rows, tokens_a=[[], [6]], tokens_b=[[], [5]]), IDS) == short, (
        "one alike is no burden"
    )
    coins: dict[str, Any] = {"phase": "accept", "field": "coins", "node": None}
    coin = root_sentence(unblamed(**coins, a="0.21632644277911206", b="0.9367557025970281"), IDS)
    assert coin == "the coin is 0.216326 in the baseline, 0.936756 in the candidate"
    close = root_sentence(unblamed(**coins, a="0.21632644277911206", b="0.21632644277911209"), IDS)
    assert close == "the coin is 0.21632644277911206 in the baseline, 0.21632644277911209 in the candidate"


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("accept.coins-distinct", "the candidate uses one coin for two decisions"),
        ("accept.thresholds", "the candidate draws coin 0.936756, wanted 0.216326"),
    ],
)
def test_a_coin_used_twice_is_no_other_seed(broken: str, sentence: str) -> None:
    root = root_at(phase="accept", field="coins", node=None, a="0.21632644277911206", b="0.9367557025970281")
    root = root.model_copy(update={"blame": [Blame(side="b", invariant=broken, witness="w")]})
    assert root_sentence(root, IDS) == sentence
    both = root.model_copy(update={"blame": [*root.blame, Blame(side="a", invariant=broken, witness="w")]})
    assert root_sentence(both, IDS) == "the coin is 0.216326 in the baseline, 0.936756 in the candidate"


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("1234567.1234567", "2234567.1234567", "1,234,570 in the baseline, 2,234,570 in the candidate"),
        ("-123456.71234567", "3.0000000001", "-123,457 in the baseline, 3 in the candidate"),
        ("1234567.1234567", "1234567.1234568", "1234567.1234567 in the baseline, 1234567.1234568 in the candidate"),
        ("1" + "0" * 300 + ".1234567", "1.2345678", "1e+300 in the baseline, 1.23457 in the candidate"),
    ],
)
def test_large_numbers_are_told_without_an_exponent(a: str, b: str, words: str) -> None:
    root = unblamed(phase="accept", field="coins", node=None, a=a, b=b)
    assert root_sentence(root, IDS) == f"the coin is {words}"


def test_texts_of_tokens_can_be_counted_and_read() -> None:
    texts = TokenTexts(None)
    step = Step(seq=0, turn=0, step=0, texts={"5": " " * 11, "7": "\n\n", "8": " of"})
    texts.learn(step)
    spoken = root_sentence(root_at(field="mask", tokens_a=[], tokens_b=[[5, 8]]), same_texts(texts))
    assert spoken == r"the candidate lets node ·×11 > \n\n see its sibling ·of"


def test_a_breach_without_a_differing_field_says_what_was_done() -> None:
    blame = [Blame(side="a", invariant="commit.prefix-unchanged", witness="it changed")]
    root = root_at(phase="commit", field="prefix-unchanged", a="it changed", b="holds", node=None)
    root = root.model_copy(update={"blame": blame, "wrong": "baseline"})
    assert root_sentence(root, IDS) == "the baseline writes into the committed prefix"


@pytest.mark.parametrize("spot", FORMS)
def test_every_form_can_be_filled_in(spot: str) -> None:
    phase, _, field = spot.partition(".")
    root = root_at(phase=phase, field=field)
    blame = [Blame(side="b", invariant=f"{phase}.anything", witness="")]
    for told in (root.model_copy(update={"blame": blame}), unblamed(phase=phase, field=field)):
        words = root_sentence(told, IDS)
        assert "{" not in words
        assert words.startswith("the candidate ") == bool(told.blame)


def test_the_list_of_roots_carries_what_at_takes() -> None:
    assert root_line(1, root_at()).at == "0/3 (0/4)"
    verdict = diff_traces(EAGER, FAULTY)
    assert [root_line(1, root).at for root in verdict.roots] == ["0/0", "1/0"]


def test_both_turn_numbers_are_said_where_they_differ() -> None:
    assert turns_name(3, 3, "x") == "turn 3 (prompt x)"
    assert turns_name(3, 5, "x") == "turns 3 and 5 (prompt x)"


def test_the_prompt_that_nobody_named_is_said_once() -> None:
    assert turns_name(0, 0, "prompt") == "turn 0 (prompt)"
    assert turns_name(0, 1, "prompt") == "turns 0 and 1 (prompt)"
    assert turns_name(0, 0, "prompt-0") == "turn 0 (prompt prompt-0)"


def test_ids_without_texts_come_with_a_hint() -> None:
    rows = {row.name: row.value for row in card_of(Report(verdict_of())).rows}
    assert "--tokenizer FOLDER" in rows["token ids"]
    redacted = TokenTexts(None)
    redacted.redacted = True
    rows = {row.name: row.value for row in card_of(Report(verdict_of(), redacted)).rows}
    assert rows["token ids"] == "a trace is redacted: its ids have no text"


def test_what_would_have_decided_is_said_where_nobody_is_blamed() -> None:
    reports = check_trace(EAGER), check_trace(FUSED)
    tally = reports[0].invariants["verify.argmax-is-top"]
    tally.passed, tally.skipped, tally.why_skipped = 0, 3, "not recorded: verify.top_logits"
    lines = with_deciding(unblamed(phase="verify", field="argmax", kind="real"), *reports).deciding
    assert lines[0].startswith("verify.argmax-is-top would tell, and was skipped in the baseline")
    assert "--trace-level scores" in lines[0]
    assert "specscope bisect" in lines[-1]
    assert with_deciding(root_at(), *reports).deciding == []
    assert with_deciding(unblamed(kind="near-tie"), *reports).deciding == []


def test_counts_have_their_plural() -> None:
    assert (counted(1, "turn"), counted(0, "turn"), counted(2, "turn")) == ("1 turn", "0 turns", "2 turns")
    assert (counted(1, "pair of steps"), counted(3, "pair of steps")) == ("1 pair of steps", "3 pairs of steps")


def test_a_float_says_how_many_floors_it_is_off() -> None:
    root = root_at(phase="verify", field="top_logits[0]", a="7.5", b="7.25", kind="real", floor=0.001)
    assert size_row(root) == ("differs by", "0.25: 250 times the noise floor 0.001")
    choice = root_at(phase="verify", field="argmax", margin_a=0.5, margin_b=0.25, floor=0.001)
    assert size_row(choice) == ("margin", "0.5 in the baseline, 0.25 in the candidate; noise floor 0.001")
    assert size_row(root_at()) is None, "a position is no matter of size"


@pytest.mark.parametrize(("steps", "words"), [((79, 81), ", 33 steps in turns"), ((63, 64), "without a partner; ")])
def test_what_was_compared_adds_up(steps: tuple[int, int], words: str) -> None:
    verdict = verdict_of(num_steps=41, num_regrouped=45)
    impact = verdict.impact.model_copy(update={"num_steps_a": steps[0], "num_steps_b": steps[1]})
    text = compared_text(verdict.model_copy(update={"impact": impact}))
    assert words in text
    assert ("that continue from different texts" in text) == (words != "without a partner; ")
