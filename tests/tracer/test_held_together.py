"""What is said in two places is held together, and what is absent is neither passed nor equal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from support.traces import EAGER, FUSED, Lines, first_step, load, store

from specscope.schemas import Step as StepRecord
from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.capped import cut_to_depth
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import Tally

Step = dict[str, Any]


def steps(lines: Lines) -> list[Step]:
    return [line for line in lines if line["kind"] == "step"]


def tally(lines: Lines, tmp_path: Path, invariant: str) -> Tally:
    return check_trace(store(lines, tmp_path / "judged.jsonl")).invariants[invariant]


def diff(tmp_path: Path, a: Lines, b: Lines) -> Verdict:
    return diff_traces(store(a, tmp_path / "a.jsonl"), store(b, tmp_path / "b.jsonl"))


def reuse_one_more(lines: Lines, num_pairs: int = 1) -> None:
    """The first turn as if one token of its prompt had been in the cache, and so many pairs in the drafter's."""
    start = next(line for line in lines if line["kind"] == "turn_start")
    start["reused_length"] = 1
    start["prefill"]["num_tokens"] -= 1
    draft = first_step(lines)["draft"]
    inputs = draft["inputs"]
    for name in ("tokens", "positions", "hidden_norms"):
        if name in inputs:
            del inputs[name][:num_pairs]
    inputs["source_rows"] = [row - num_pairs for row in inputs["source_rows"][num_pairs:]]
    draft["kv_before"] += num_pairs
    first_step(lines)["commit"]["drafter_before"] += num_pairs


def test_a_turn_that_reuses_more_of_its_prompt_is_no_difference(tmp_path: Path) -> None:
    more = load(FUSED)
    reuse_one_more(more)
    for a, b in ((load(EAGER), more), (more, load(EAGER))):
        verdict = diff(tmp_path, a, b)
        assert (verdict.verdict, verdict.roots) == ("equal", [])
    lost = load(FUSED)
    reuse_one_more(lost, num_pairs=2)
    assert diff(tmp_path, load(EAGER), lost).verdict == "different", "a pair that nobody reused is missing"


def test_gathers_of_one_engine_are_compared(tmp_path: Path) -> None:
    ours, theirs = load(EAGER), load(FUSED)
    for step in (*steps(ours), *steps(theirs)):
        step["tensors"]["index_tensors"]["retrieve"] = list(range(step["tensors"]["num_slots"]))
    assert diff(tmp_path, ours, theirs).verdict == "equal"
    first_step(theirs)["tensors"]["index_tensors"]["retrieve"].reverse()
    root = diff(tmp_path, ours, theirs).roots[0]
    assert (root.difference.field, root.place.step_b) == ("index_tensors.retrieve[0]", 0)
    first_step(theirs)["tensors"]["index_tensors"]["retrieve"].append(0)  # of another size by another setting
    assert diff(tmp_path, ours, theirs).verdict != "different"
    first_step(theirs)["tensors"]["index_tensors"]["retrieve"].pop()
    theirs[0]["engine"] = "another"  # whose list of that name may be another list
    assert diff(tmp_path, ours, theirs).verdict != "different"


def test_a_nodes_score_is_its_candidates(tmp_path: Path) -> None:
    lines = load(FUSED)
    for step in steps(lines):
        for name in ("logprobs", "scores"):
            step["tree"][name] = [value / 2 for value in step["tree"][name]]
    assert tally(lines, tmp_path, "tree.nodes-were-proposed").failed


def test_features_that_are_recorded_are_judged_whatever_the_manifest_says_of_layers(tmp_path: Path) -> None:
    lines = load(FUSED)
    del lines[0]["drafter"]["hidden_state_indices"]
    assert not tally(lines, tmp_path, "draft.features-are-committed").failed
    steps(lines)[1]["draft"]["inputs"]["hidden_digest"] = "0123456789abcdef"
    assert tally(lines, tmp_path, "draft.features-are-committed").failed == 1


def test_windows_that_are_recorded_are_skipped_where_no_manifest_says_what_they_must_be(tmp_path: Path) -> None:
    lines = load(FUSED)
    for step in steps(lines):
        step["verify"]["windows"] = [{"size": 4, "layers": [0], "first_positions": [0], "num_seen": [1]}]
    judged = tally(lines, tmp_path, "verify.windows")
    assert (judged.passed, judged.skipped) == (0, len(steps(lines)))
    assert judged.why_skipped == "not recorded: manifest.teacher.sliding_windows"


def test_what_the_step_before_does_not_say_passes_nothing(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["capabilities"] = [name for name in lines[0]["capabilities"] if name not in ("stop", "accept")]
    for step in steps(lines):
        del step["stop"], step["accept"]
    firsts = sum(step["step"] == 0 for step in steps(lines))
    for name in ("draft.pair-tokens", "draft.source-rows", "sequence.root-is-last-bonus", "sequence.length-continues"):
        judged = tally(lines, tmp_path, name)
        assert (judged.passed, judged.skipped) == (firsts, len(steps(lines)) - firsts), name


def test_what_a_first_step_lacks_is_named_by_where_it_would_stand(tmp_path: Path) -> None:
    lines = load(FUSED)
    for line in lines:
        line.get("prefill", {}).pop("features_digest", None)
    judged = tally(lines, tmp_path, "draft.features-are-committed")
    assert judged.why_skipped == "not recorded: prefill.features_digest"
    assert judged.passed


def test_a_greedy_turn_begins_with_the_best_token(tmp_path: Path) -> None:
    lines = load(FUSED)
    prefill = next(line for line in lines if line["kind"] == "turn_start")["prefill"]
    prefill["top_tokens"][:2] = reversed(prefill["top_tokens"][:2])
    assert tally(lines, tmp_path, "turn.prefill").failed == 1
    prefill["top_logits"][1] = prefill["top_logits"][0]
    assert not tally(lines, tmp_path, "turn.prefill").failed, "of two equal ones either is the best"


def test_a_phase_of_which_both_record_nothing_in_common_is_not_compared(tmp_path: Path) -> None:
    ours, theirs = load(EAGER), load(FUSED)
    for lines, number in ((ours, 68), (theirs, 3)):
        for step in steps(lines):
            step["draft"] = {"num_candidates": number}
    verdict = diff(tmp_path, ours, theirs)
    assert "draft" not in {phase for phase, count in verdict.compared.items() if count}


def test_a_number_that_one_side_lacks_is_named(tmp_path: Path) -> None:
    theirs = load(FUSED)
    for step in steps(theirs):
        del step["verify"]["logsumexp"]
    (line,) = diff(tmp_path, load(EAGER), theirs).unjudged
    assert "verify.logsumexp" in line


def test_a_step_that_is_cut_to_a_depth_keeps_no_more_than_it_emits() -> None:
    record = next(step for step in steps(load(FUSED)) if step["accept"]["accepted_length"] >= 2)
    cut = cut_to_depth(StepRecord.model_validate(copy.deepcopy(record)), 1)
    assert cut.stop is not None
    assert (len(cut.stop.emitted), cut.stop.kept) == (2, 2)
