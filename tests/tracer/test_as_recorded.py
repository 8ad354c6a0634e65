"""The card says no more than was recorded: of inputs, of shares, and of what can be run or recorded next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.traces import EAGER, FUSED
from support.verdicts import root_at, verdict_of

from specscope.schemas import Manifest
from specscope.schemas.verdict import Blame, DriftFinding, NoiseFloor, Root
from specscope.tracer.compare.deciding import with_deciding
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.report.card import inputs_text
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.sizes import sensitivity_text
from specscope.tracer.report.values import same_texts


def unblamed(**changes: Any) -> Root:
    return root_at(**changes).model_copy(update={"blame": [], "wrong": "neither"})


def test_a_run_of_another_engine_is_told_what_to_record_and_not_what_cannot_run() -> None:
    reports = check_trace(EAGER), check_trace(FUSED)
    foreign = [replace(report, manifest=without_sources(report.manifest)) for report in reports]
    for report in foreign:
        for name in ("prefix-kept", "content-moved", "prefix-unchanged"):
            report.invariants[f"commit.{name}"].passed = 1
    root = unblamed(phase="verify", field="argmax", kind="real")
    lines = with_deciding(root, foreign[0], foreign[1]).deciding
    assert not [line for line in lines if "bisect" in line or "replay" in line]
    assert lines[0] == "no record can tell two forwards apart; diff --noise GOOD_RUN measures what is noise"
    assert not [line for line in lines if "have the engine record commit." in line], "they are recorded"
    tally = foreign[1].invariants["commit.prefix-kept"]
    tally.passed, tally.skipped = 0, 3
    lines = with_deciding(root, foreign[0], foreign[1]).deciding
    assert (
        "a stale or overwritten cache would show: have the engine record commit.kv_digests_before, "
        "commit.kv_digests_after"
    ) in lines
    assert with_deciding(unblamed(), foreign[0], foreign[1]).deciding == []


def without_sources(manifest: Manifest) -> Manifest:
    """The manifest of a run of which nobody knows where its models were loaded from."""
    teacher = manifest.teacher.model_copy(update={"source": None})
    return manifest.model_copy(update={"teacher": teacher})


def test_inputs_are_said_to_be_equal_as_far_as_they_were_recorded() -> None:
    assert inputs_text(unblamed(phase="tensors").difference) == "inputs equal"
    of_forward = unblamed(phase="verify", field="argmax", kind="real")
    assert inputs_text(of_forward.difference) == "recorded inputs equal"
    assert inputs_text(unblamed(phase="tree", field="nodes").difference) == "recorded inputs equal"
    stale = [Blame(side="b", invariant="commit.prefix-kept", witness="layer 0")]
    assert inputs_text(of_forward.difference, stale) == "recorded inputs equal, except what a cache holds"


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1.0, "the teacher's logits are all off, by 2 times"),
        (0.999, "99% of the teacher's logits are off, by 2 times"),
        (0.13, "13% of the teacher's logits are off, by 2 times"),
        (0.001, "less than 1% of the teacher's logits are off, by 2 times"),
    ],
)
def test_only_all_of_the_values_are_called_all(share: float, words: str) -> None:
    drift = DriftFinding(quantity="logits", num_values=760, typical=32, allowed=16, share=share, against="dtype")
    root = unblamed(phase="verify", field="top_logits", kind="real").model_copy(update={"drift": drift})
    assert root_sentence(root, same_texts(TokenTexts(None))).startswith(words)


@pytest.mark.parametrize(("epsilon", "advice"), [(2.0**-52, False), (2.0**-23, False), (2.0**-10, True)])
def test_float32_is_advised_only_where_it_is_finer(epsilon: float, advice: bool) -> None:
    unit = 16 * epsilon
    floor = NoiseFloor(
        quantity="logits", floor=unit, source="dtype", sample_size=0, rounding=unit, least=unit, most=unit
    )
    line = sensitivity_text(verdict_of().model_copy(update={"sensitivity": 0.1, "floors": [floor]}))
    assert line is not None
    assert ("float32" in line) == advice
