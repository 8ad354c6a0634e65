"""Recorded choices of a shape: judged by the oracle, compared by the diff, priced by whatif."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.shape_mutants import WRONG_CHOICES, chooses, steps_of
from support.shape_tables import profile_of, step_ms
from support.traces import EAGER, FUSED, load, store

from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace


def test_a_run_that_chooses_by_its_table_is_sound_and_every_step_is_judged(tmp_path: Path) -> None:
    lines = chooses(load(FUSED))
    report = check_trace(store(lines, tmp_path / "auto.jsonl"))
    assert report.num_violations == 0
    tally = report.invariants["draft.shape-pays"]
    assert (tally.passed, tally.skipped) == (len(steps_of(lines)), 0)
    assert report.invariants["tree.best-of-candidates"].passed == len(steps_of(lines)), "the shape's policy is judged"


@pytest.mark.parametrize("wrong", WRONG_CHOICES)
def test_a_wrong_choice_is_a_violation(tmp_path: Path, wrong: str) -> None:
    lines = load(FUSED)
    WRONG_CHOICES[wrong](lines)
    tally = check_trace(store(lines, tmp_path / "wrong.jsonl")).invariants["draft.shape-pays"]
    assert tally.first is not None
    assert tally.first.witness


def test_a_choice_that_was_not_recorded_is_skipped(tmp_path: Path) -> None:
    lines = chooses(load(FUSED))
    lines[0]["capabilities"].remove("shape")
    for step in steps_of(lines):
        del step["shape"]
    report = check_trace(store(lines, tmp_path / "unsaid.jsonl"))
    tally = report.invariants["draft.shape-pays"]
    assert (report.num_violations, tally.passed, tally.skipped) == (0, 0, len(steps_of(lines)))


def test_two_runs_that_choose_alike_are_compared_as_any_others(tmp_path: Path) -> None:
    eager, fused = (store(chooses(load(run)), tmp_path / run.name) for run in (EAGER, FUSED))
    verdict = diff_traces(eager, fused)
    assert (verdict.verdict, verdict.roots) == (diff_traces(EAGER, FUSED).verdict, [])


def test_another_shape_at_the_same_load_is_a_root(tmp_path: Path) -> None:
    lines = chooses(load(FUSED))
    place = steps_of(lines)[2]
    place["shape"]["name"] = "none"
    verdict = diff_traces(store(chooses(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    root = verdict.roots[0].difference
    assert (root.phase, root.field, root.a, root.b) == ("draft", "shape", "dynamic", "none")
    assert (root.kind, root.inputs_equal) == ("structural", True)


def test_at_another_load_another_shape_is_no_difference(tmp_path: Path) -> None:
    lines = chooses(load(FUSED))
    for step in steps_of(lines):
        step["shape"] |= {"name": "none", "rows": 2}
    verdict = diff_traces(store(chooses(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    assert not [root for root in verdict.roots if root.difference.field == "shape"]


def test_runs_by_different_profiles_cannot_be_compared(tmp_path: Path) -> None:
    lines = chooses(load(FUSED))
    lines[0]["tree_policy"]["shapes"]["profile"] = "f" * 32
    verdict = diff_traces(store(chooses(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    assert verdict.verdict == "incomparable"
    assert any("tree_policy.shapes.profile" in line for line in verdict.incomparable)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    with TraceReader(FUSED) as reader:
        measured = profile_of(reader.manifest)
    path = tmp_path / "profile.json"
    path.write_text(measured.model_dump_json(by_alias=True, exclude_none=True))
    return path


def test_whatif_prices_each_setting_by_the_profile(profile: Path) -> None:
    asked = ("whatif", str(FUSED), "--profile", str(profile))
    document = json.loads(specscope(*asked, "--json").out)
    context = document["load"]["context"]
    assert document["load"]["rows"] == 1
    assert 50 <= context <= 150, "between what the profile measured"
    assert len(document["outcomes"]) > 5
    for outcome in document["outcomes"]:
        wanted = step_ms(outcome["depth"], outcome["budget"], 1, context)
        predicted = outcome["predicted"]
        assert predicted["step_ms"] == pytest.approx(wanted)
        tokens = outcome["accepted_length"]["value"] + 1
        assert predicted["tokens_per_second"] == pytest.approx(1e3 * tokens / wanted)
    shown = specscope(*asked).out
    assert "tokens per second" in shown
    assert f"{document['outcomes'][0]['predicted']['tokens_per_second']:.1f}" in shown


def test_without_a_profile_whatif_prices_nothing() -> None:
    document = json.loads(specscope("whatif", str(FUSED), "--json").out)
    assert "predicted" not in document["outcomes"][0]
    assert "load" not in document


def test_whatif_refuses_a_profile_of_other_models_and_a_file_that_is_none(profile: Path, tmp_path: Path) -> None:
    content = json.loads(profile.read_text())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"teacher": {**content["teacher"], "weights_digest": "a" * 32}}, "another teacher"),
        ({"drafter": {**content["drafter"], "kind": "ngram", "weights_digest": None}}, "another kind of drafter"),
        ({"schema": "specscope.profile/2.0"}, "is not a profile"),
        ({"steps": content["steps"][1:]}, "is not a profile"),
        ({"shapes": []}, "is not a profile"),
    ]
    for changes, words in cases:
        path = tmp_path / "other.json"
        path.write_text(json.dumps(content | changes))
        refused = specscope("whatif", str(FUSED), "--profile", str(path))
        assert refused.code == 2
        assert words in " ".join(refused.err.split()), refused.err
    missing = specscope("whatif", str(FUSED), "--profile", str(tmp_path / "none.json"))
    assert missing.code == 2
    assert "cannot read a profile" in missing.err
