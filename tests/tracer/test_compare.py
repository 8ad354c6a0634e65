"""Diffs of real traces and of copies broken in one known way: the first root is where it was put."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.traces import (
    EAGER,
    FAULTY,
    FUSED,
    ROOT,
    Lines,
    accepts_at_least,
    drop_last_node,
    first_step,
    flat_floors,
    load,
    permute_slots,
    store,
)

from specscope.schemas import Step as StepRecord
from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.said import Said
from specscope.tracer.compare.steps import StepPair, choice

Step = dict[str, Any]


def diff_with(tmp_path: Path, lines: Lines, options: DiffOptions | None = None) -> Verdict:
    return diff_traces(FUSED, store(lines, tmp_path / "candidate.jsonl"), options)


def test_the_same_run_twice_is_equal() -> None:
    verdict = diff_traces(FUSED, FUSED)
    assert (verdict.verdict, verdict.exit_code, verdict.roots, verdict.drift) == ("equal", 0, [], [])
    assert verdict.num_steps > 10


def test_fused_against_eager_is_equal_but_for_drift() -> None:
    verdict = diff_traces(EAGER, FUSED)
    assert (verdict.verdict, verdict.exit_code) == ("equal", 0)
    assert verdict.impact.tokens_equal
    assert verdict.drift
    assert all(floor.source == "this-pair" and floor.sample_size > 100 for floor in verdict.floors)
    assert "mode: eager -> fused" in verdict.axis


def test_the_faulty_run_is_found_at_its_positions_and_the_right_side_is_blamed() -> None:
    verdict = diff_traces(EAGER, FAULTY)
    assert (verdict.verdict, verdict.exit_code) == ("different", 1)
    root = verdict.roots[0]
    assert (root.difference.phase, root.difference.field, root.difference.kind) == (
        "tensors",
        "positions",
        "structural",
    )
    assert root.difference.inputs_equal
    assert {blame.side for blame in root.blame} == {"b"}
    assert root.blame[0].invariant == "tensors.position-is-length-plus-depth"
    assert root.place.step_b == 0


@pytest.mark.parametrize("seed", range(4))
def test_slot_order_does_not_matter(tmp_path: Path, seed: int) -> None:
    lines = load(FUSED)
    permute_slots(lines, seed)
    assert lines != load(FUSED)
    verdict = diff_with(tmp_path, lines)
    assert (verdict.verdict, verdict.roots, verdict.violations) == ("equal", [], [])


def draft_positions(step: Step) -> None:
    inputs = step["draft"]["inputs"]
    inputs["positions"] = [p + 1 for p in inputs["positions"]]


def draft_source(step: Step) -> None:
    step["draft"]["inputs"]["source_rows"][-1] = 1 if step["draft"]["inputs"]["source_rows"][-1] != 1 else 2


def draft_score(step: Step) -> None:
    step["draft"]["levels"][0]["logprobs"][1] -= 0.25


def draft_token(step: Step) -> None:
    step["draft"]["levels"][0]["tokens"][0] = 4000


def mask_bit(step: Step) -> None:
    rows = step["tensors"]["mask_rows"]
    bits = int.from_bytes(bytes.fromhex(rows[2]), "little") ^ 2
    rows[2] = bits.to_bytes(len(rows[2]) // 2, "little").hex()


def position(step: Step) -> None:
    step["tensors"]["positions"][1] += 1


def logit(step: Step) -> None:
    step["verify"]["top_logits"][0][0] += 1.0


def argmax(step: Step) -> None:
    verify = step["verify"]
    verify["top_tokens"][1] = [17, verify["top_tokens"][1][0]]
    verify["argmax"][1] = 17


def shorter_path(step: Step) -> None:
    step["accept"]["path"].pop()
    step["accept"]["accepted_length"] -= 1


def bonus(step: Step) -> None:
    step["accept"]["bonus_token"] += 1


def commit_source(step: Step) -> None:
    step["commit"]["source_slots"][-1] = 1 if step["commit"]["source_slots"][-1] != 1 else 2


def drafter_length(step: Step) -> None:
    step["commit"]["drafter_after"] += 4


def kept(step: Step) -> None:
    step["stop"]["kept"] -= 1


TWO = accepts_at_least(2)


def later(step: Step) -> bool:
    return bool(step["step"] > 1)


#: which step, how to break it, the phase and field where the first root must be
BROKEN: list[tuple[Callable[[Step], bool], Callable[[Step], None], str, str]] = [
    (later, draft_positions, "draft", "inputs.positions"),
    (later, draft_source, "draft", "inputs.source_rows"),
    (later, draft_score, "draft", "levels[1].logprobs"),
    (later, draft_token, "draft", "levels[1].tokens"),
    (later, drop_last_node, "tree", "nodes"),
    (later, mask_bit, "tensors", "mask"),
    (later, position, "tensors", "positions"),
    (later, logit, "verify", "top_logits[0]"),
    (later, argmax, "verify", "argmax"),
    (TWO, shorter_path, "accept", "path"),
    (later, bonus, "accept", "bonus_token"),
    (TWO, commit_source, "commit", "source_slots"),
    (later, drafter_length, "commit", "drafter_after"),
    (TWO, kept, "stop", "kept"),
]


@pytest.mark.parametrize(("which", "breaks", "phase", "field"), BROKEN, ids=[b[1].__name__ for b in BROKEN])
def test_the_root_is_where_it_was_put(
    tmp_path: Path, which: Callable[[Step], bool], breaks: Callable[[Step], None], phase: str, field: str
) -> None:
    lines = load(FUSED)
    step = first_step(lines, which)
    breaks(step)
    verdict = diff_with(tmp_path, lines)
    assert (verdict.verdict, verdict.exit_code) == ("different", 1)
    root = verdict.roots[0]
    assert (root.difference.phase, root.difference.field) == (phase, field)
    assert root.difference.inputs_equal
    assert (root.place.turn, root.place.step_b) == (step["turn"], step["step"])


def test_drift_is_counted_and_stated_but_is_no_difference(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines, later)["verify"]["top_logits"][0][0] += 1e-4
    verdict = diff_with(tmp_path, lines, DiffOptions(tolerance=1e-3))
    assert verdict.verdict == "equal"
    assert [(d.field, d.count) for d in verdict.drift] == [("verify.top_logits", 1)]
    assert [(f.floor, f.source, f.sample_size) for f in verdict.floors] == [(1e-3, "given", 0)] * 5
    # Every other value of this pair is equal to the last bit: against that noise, 1e-4 is no drift.
    assert diff_with(tmp_path, lines).verdict == "different"


def tie(lines: Lines, margin: float) -> Lines:
    """In both runs the two best tokens of one rejected node lie ``margin`` apart; the candidate chose the other."""
    other = copy.deepcopy(lines)
    for run, swapped in ((lines, False), (other, True)):
        verify = first_step(run, later)["verify"]
        slot = len(verify["argmax"]) - 1
        tokens, best = verify["top_tokens"][slot], verify["top_logits"][slot][0]
        verify["top_tokens"][slot] = tokens[::-1] if swapped else tokens
        verify["argmax"][slot] = verify["top_tokens"][slot][0]
        verify["top_logits"][slot] = [best, best - margin]
    return other


@pytest.mark.parametrize(
    ("margin", "kind", "verdict", "code"),
    [(0.0, "exact-tie", "ties", 0), (3e-6, "near-tie", "ties", 0), (0.5, "real", "different", 1)],
)
def test_ties_are_told_from_real_differences(tmp_path: Path, margin: float, kind: str, verdict: str, code: int) -> None:
    lines = load(FUSED)
    other = tie(lines, margin)
    a, b = store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl")
    found = diff_traces(a, b)
    assert (found.verdict, found.exit_code, found.roots[0].difference.kind) == (verdict, code, kind)
    assert found.roots[0].difference.margin_a == pytest.approx(margin, abs=1e-9)
    assert (found.roots[0].difference.tie_break is not None) == (kind == "exact-tie")
    assert diff_traces(a, b, DiffOptions(fail_on_ties=True)).exit_code == 1


def test_a_structural_difference_is_never_excused_by_a_tie_before_it(tmp_path: Path) -> None:
    lines = load(FUSED)
    other = tie(lines, 0.0)
    steps = [s for s in other if s["kind"] == "step" and s["step"] > 1]
    mask_bit(steps[1])
    found = diff_traces(store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl"))
    assert found.verdict == "different"
    assert found.roots[0].difference.field == "mask"


def test_two_independent_roots_are_both_found_and_the_rest_is_inherited(tmp_path: Path) -> None:
    lines = load(FUSED)
    steps = [s for s in lines if s["kind"] == "step" and s["turn"] == 0]
    mask_bit(steps[1])
    position(steps[2])
    mask_bit(steps[5])
    verdict = diff_with(tmp_path, lines)
    assert [(r.place.step_b, r.difference.field) for r in verdict.roots] == [(1, "mask"), (2, "positions"), (5, "mask")]
    assert {r.wrong for r in verdict.roots} == {"candidate"}


def test_the_same_break_step_after_step_is_one_root(tmp_path: Path) -> None:
    lines = load(FUSED)
    steps = [s for s in lines if s["kind"] == "step" and s["turn"] == 0]
    for step in steps[1:5]:
        mask_bit(step)
    verdict = diff_with(tmp_path, lines)
    assert [(r.place.step_b, r.inherited) for r in verdict.roots] == [(1, 3)]
    assert verdict.num_inherited == 3


def test_a_violated_invariant_on_both_sides_is_no_clean_verdict(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines, later)["commit"]["prefix_after"] = "0123456789abcdef"
    path = store(lines, tmp_path / "both.jsonl")
    verdict = diff_traces(path, path)
    assert (verdict.verdict, verdict.exit_code, verdict.roots) == ("different", 1, [])
    assert {(v.side, v.invariant) for v in verdict.violations} == {
        ("a", "commit.prefix-unchanged"),
        ("b", "commit.prefix-unchanged"),
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("seed",), 99),
        (("teacher", "weights_digest"), "0123456789abcdef"),
        (("tree_policy", "budget"), 99),
        (("dtype",), "x"),
    ],
)
def test_what_was_not_meant_to_differ_makes_the_pair_incomparable(
    tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    lines = load(FUSED)
    target = lines[0]
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    verdict = diff_with(tmp_path, lines)
    name = ".".join(path)
    assert (verdict.verdict, verdict.exit_code) == ("incomparable", 3)
    assert verdict.incomparable[0].startswith(f"{name}: ")
    assert diff_with(tmp_path, lines, DiffOptions(allowed=frozenset([name]))).verdict == "equal"


def test_other_prompts_are_incomparable(tmp_path: Path) -> None:
    lines = load(FUSED)
    next(line for line in lines if line["kind"] == "turn_start")["prompt_ids"][0] += 1
    assert diff_with(tmp_path, lines).exit_code == 3


def test_a_truncated_candidate_is_not_judged_equal(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    content = FUSED.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    verdict = diff_traces(FUSED, path)
    assert (verdict.verdict, verdict.exit_code) == ("uncovered", 4)
    assert any("truncated" in line for line in verdict.uncovered)
    assert any("only in the baseline" in line for line in verdict.uncovered)


def steps_of(lines: Lines, turn: int) -> list[Step]:
    return [line for line in lines if line["kind"] == "step" and line["turn"] == turn]


def narrower_tree(lines: Lines) -> Lines:
    """A copy whose tree in one step lacks its last leaf, beside a tie in the drafts of both."""
    other = tie(lines, 0.0)
    drop_last_node(steps_of(other, 0)[3])
    return other


def test_a_tree_that_lost_nodes_is_not_excused_by_a_tie_elsewhere(tmp_path: Path) -> None:
    lines = load(FUSED)
    other = narrower_tree(lines)
    found = diff_traces(store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl"))
    assert (found.verdict, found.roots[0].difference.phase) == ("different", "tree")


@pytest.mark.parametrize("gap", [0, 2e-4])
def test_scores_within_noise_at_the_budgets_edge_are_a_tie_and_no_difference(gap: float) -> None:
    lines = load(FUSED)
    step = first_step(lines, later)
    twin = copy.deepcopy(step)
    tree = step["tree"]
    worst = min(range(1, len(tree["scores"])), key=lambda s: (s in tree["parents"][1:], tree["scores"][s]))
    for run, token in ((step, None), (twin, 3999)):
        levels = run["draft"]["levels"]
        # Both runs propose one more token beside the worst leaf, with the leaf's own score; each keeps one of the two.
        place = next(
            (level, at)
            for level in levels
            for at, t in enumerate(level["tokens"])
            if t == tree["tokens"][worst] and abs(level["logprobs"][at] - tree["logprobs"][worst]) < 1e-9
        )
        level, at = place
        width = len(level["tokens"]) // max(1, len(level["frontier"]))
        row = at // width
        spare = next(i for i in range(row * width, (row + 1) * width) if level["tokens"][i] not in tree["tokens"])
        level["tokens"][spare], level["logprobs"][spare] = 3999, level["logprobs"][at] - gap
        if token is not None:
            run["tree"]["tokens"][worst] = run["tensors"]["token_ids"][worst] = token
    a, b = (StepNodes(StepRecord.model_validate_json(json.dumps(s))) for s in (step, twin))
    (found,) = [
        d
        for d in compare_steps(
            StepPair(
                a=a, b=b, previous_a=None, previous_b=None, judge=FloatJudge(flat_floors(1e-3)), trees_compared=True
            )
        )
        if d.phase == "tree"
    ]
    assert (found.field, found.kind, found.inputs_equal) == ("nodes", "near-tie", True)
    assert found.floor
    assert [found.margin_a, found.margin_b] == pytest.approx([gap, gap], abs=1e-9)


def test_steps_missing_at_a_turns_end_are_no_clean_verdict(tmp_path: Path) -> None:
    lines = load(FUSED)
    gone = steps_of(lines, 1)[3:]
    kept = [line for line in lines if line not in gone]
    assert diff_with(tmp_path, kept).exit_code == 1


def test_outputs_that_differ_without_a_recorded_reason_are_uncovered(tmp_path: Path) -> None:
    lines = load(FUSED)
    other = tie(lines, 0.0)
    for run in (lines, other):
        for step in steps_of(run, 1):
            del step["accept"], step["stop"]
        run[0]["capabilities"] = ["draft", "tree", "tensors", "verify", "commit"]
    next(line for line in other if line["kind"] == "turn_end" and line["turn"] == 1)["output_ids"][-1] += 1
    for run in (lines, other):
        for step in [s for s in run if s["kind"] == "step"]:
            step.pop("accept", None)
            step.pop("stop", None)
    found = diff_traces(store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl"))
    assert found.exit_code == 4
    assert any("nothing that was recorded says where" in line for line in found.uncovered)
    assert any("does not record accept, stop" in line for line in found.uncovered)


def test_a_difference_in_the_prefill_is_a_root(tmp_path: Path) -> None:
    lines = load(FUSED)
    next(line for line in lines if line["kind"] == "turn_start")["prefill"]["top_logits"][0] += 2.0
    root = diff_with(tmp_path, lines).roots[0]
    assert (root.difference.phase, root.difference.field) == ("verify", "prefill.top_logits")


@pytest.mark.parametrize("reason", ["failed", "interrupted"])
def test_a_run_that_did_not_finish_is_not_judged_equal(tmp_path: Path, reason: str) -> None:
    lines = load(FUSED)
    lines[-1]["reason"] = reason
    verdict = diff_with(tmp_path, lines)
    assert verdict.exit_code == 4
    assert any(reason in line for line in verdict.uncovered)


# Traces of other writers: what is not there is no tie, and what does not fit together is no crash.


def example() -> Lines:
    """The smallest trace of the format's document: tree, verify, accept, stop."""
    text = (ROOT / "docs" / "trace-format.md").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("```jsonl\n")[1].split("```")[0].splitlines()]


def test_a_choice_without_its_logits_is_never_a_tie(tmp_path: Path) -> None:
    lines, other = example(), example()
    for run, best in ((lines, [2, 9]), (other, [9, 2])):
        step = first_step(run)
        step["verify"]["top_tokens"] = [[4, 5], [8, 5], best]
        step["verify"]["argmax"][2] = best[0]
        step["accept"]["bonus_token"] = step["stop"]["emitted"][2] = best[0]
    verdict = diff_traces(store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl"))
    assert (verdict.verdict, verdict.exit_code) == ("different", 1)
    assert verdict.roots[0].difference.kind == "real"
    judge = FloatJudge(flat_floors(1e-3))
    silent = Said(best=9, tokens=[], logits=[])
    for known in (Said(best=2, tokens=[], logits=[]), Said(best=2, tokens=[2, 9], logits=[1.0, 1.0])):
        assert choice(judge, "argmax", known, silent, inputs_equal=True).kind == "real"
    both = (Said(best=2, tokens=[2, 9], logits=[1.0, 1.0]), Said(best=9, tokens=[9, 2], logits=[1.0, 1.0]))
    assert choice(judge, "argmax", *both, inputs_equal=True).kind == "exact-tie"


@pytest.mark.parametrize(
    "damage",
    [
        lambda step: step["tree"]["parents"].pop(),
        lambda step: step["verify"]["argmax"].pop(),
        lambda step: step["verify"].update(top_tokens=[[1, 2]], top_logits=[[2.0, 1.0]]),
    ],
    ids=["parents", "argmax", "top_logits"],
)
def test_lists_that_do_not_fit_together_are_a_violation_and_no_crash(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    lines, other = example(), example()
    damage(first_step(other))
    a, b = store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl")
    for pair in ((a, b), (b, a), (b, b)):
        assert diff_traces(*pair).exit_code == 1


def test_the_step_after_one_whose_lists_do_not_fit_is_compared_all_the_same(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines)["tree"]["parents"].pop()
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert verdict.exit_code == 1
    assert "tensors.sizes" in {violated.invariant for violated in verdict.violations}


def test_a_run_without_a_drafter_may_record_no_trees(tmp_path: Path) -> None:
    lines = load(EAGER)
    lines[0]["drafter"]["kind"] = "none"
    for line in lines:
        if line["kind"] == "step":
            del line["tree"]
    alone = store(lines, tmp_path / "alone.jsonl")
    for pair in ((alone, FUSED), (FUSED, alone), (alone, alone)):
        assert diff_traces(*pair).exit_code == 1, "sections that the manifest promises are missing"


def test_every_step_without_a_partner_is_counted(tmp_path: Path) -> None:
    lines, other = load(FUSED), load(FUSED)
    last = max(line["step"] for line in other if line["kind"] == "step" and line["turn"] == 0)
    other = [x for x in other if not (x["kind"] == "step" and x["turn"] == 0 and x["step"] > last - 2)]
    verdict = diff_traces(store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl"))
    assert verdict.num_regrouped == 2
