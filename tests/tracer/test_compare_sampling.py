"""Diffs of runs that draw: a coin that rounding may tip is a tie, another coin is never excused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.toy_run import Toy, toy_lines
from support.traces import FUSED, Lines, first_step, flat_floors, load, store

from specscope.schemas import Step as StepRecord
from specscope.schemas.verdict import Difference, Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.steps import StepPair

Step = dict[str, Any]
SAMPLING = Toy("sampling")


def diff(tmp_path: Path, a: Lines, b: Lines, options: DiffOptions | None = None) -> Verdict:
    return diff_traces(store(a, tmp_path / "a.jsonl"), store(b, tmp_path / "b.jsonl"), options)


def compared(a: Step, b: Step) -> list[Difference]:
    """The differences of two first steps, whatever the oracle thinks of them."""
    nodes = [StepNodes(StepRecord.model_validate_json(json.dumps(step))) for step in (a, b)]
    return compare_steps(
        StepPair(
            a=nodes[0],
            b=nodes[1],
            previous_a=None,
            previous_b=None,
            judge=FloatJudge(flat_floors(1e-3)),
            trees_compared=True,
        )
    )


def trials(step: Step) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = step["accept"]["visited"][0]["trials"]
    return found


@pytest.mark.parametrize(
    "toy",
    [SAMPLING, Toy("sampling", draft="sampled", temperature=0.7), Toy("typical"), Toy(levels=False)],
    ids=["sampling", "sampled", "typical", "lookup"],
)
def test_another_kernels_rounding_is_drift(tmp_path: Path, toy: Toy) -> None:
    verdict = diff(tmp_path, toy_lines(toy), toy_lines(replace(toy, jitter=1e-6)))
    assert (verdict.verdict, verdict.roots, verdict.impact.tokens_equal) == ("equal", [], True)
    if toy.rule != "greedy":
        assert {d.field for d in verdict.drift} >= {"accept.target_prob", "accept.bonus_draw", "prefill.draw"}


def near_tie(find: Callable[[Step], float], slot: Callable[[Step], int], toy: Toy) -> tuple[Toy, Toy]:
    """Two honest runs in which a coin of the first step lies between the two sides' boundaries that ``find`` gives."""
    sides = (toy, replace(toy, jitter=2e-6))
    steps = [first_step(toy_lines(side)) for side in sides]
    coin = sum(map(find, steps)) / 2
    assert min(map(find, steps)) < coin < max(map(find, steps))
    coins = {(0, 0, slot(steps[0])): coin}
    return replace(sides[0], coins=coins), replace(sides[1], coins=coins)


def test_a_coin_between_two_equal_thresholds_is_a_near_tie(tmp_path: Path) -> None:
    a, b = near_tie(lambda step: float(trials(step)[0]["threshold"]), lambda _: 1, SAMPLING)
    verdict = diff(tmp_path, toy_lines(a), toy_lines(b))
    root = verdict.roots[0].difference
    assert (verdict.verdict, verdict.exit_code, verdict.violations) == ("ties", 0, [])
    assert (root.phase, root.field, root.kind, root.inputs_equal) == ("accept", "trials.accepted", "near-tie", True)
    assert {root.a, root.b} == {"accepted", "rejected"}
    assert root.margin_a is not None
    assert root.margin_a < 1e-4
    strict = diff(tmp_path, toy_lines(a), toy_lines(b), DiffOptions(fail_on_ties=True))
    assert strict.exit_code == 1


def test_a_coin_at_the_edge_of_two_shares_is_a_near_tie(tmp_path: Path) -> None:
    toy = next(
        found
        for seed in range(30)
        if not first_step(toy_lines(found := replace(SAMPLING, seed=seed)))["accept"]["path"]
    )
    a, b = near_tie(lambda step: float(step["accept"]["bonus_draw"]["high"]), lambda _: -1, toy)
    verdict = diff(tmp_path, toy_lines(a), toy_lines(b))
    root = verdict.roots[0].difference
    assert (verdict.verdict, verdict.violations) == ("ties", [])
    assert (root.field, root.kind, root.inputs_equal) == ("bonus_token", "near-tie", True)


def test_a_first_token_drawn_at_the_edge_of_two_shares_is_a_near_tie(tmp_path: Path) -> None:
    sides = (SAMPLING, replace(SAMPLING, jitter=2e-6))
    ends = [toy_lines(side)[1]["prefill"]["draw"]["high"] for side in sides]
    coins = {(0, -1, -1): sum(ends) / 2}
    a, b = (toy_lines(replace(side, coins=coins)) for side in sides)
    verdict = diff(tmp_path, a, b)
    root = verdict.roots[0].difference
    assert (verdict.verdict, root.field, root.kind) == ("ties", "prefill.pending_token", "near-tie")


def test_a_decision_against_its_coin_is_real_and_the_right_side_is_blamed(tmp_path: Path) -> None:
    lines = toy_lines(SAMPLING)
    other = copy.deepcopy(lines)
    trial = trials(first_step(other))[0]
    trial["accepted"] = not trial["accepted"]
    verdict = diff(tmp_path, lines, other)
    root = verdict.roots[0]
    assert (verdict.verdict, root.difference.field, root.difference.kind) == ("different", "trials.accepted", "real")
    assert {(blame.side, blame.invariant) for blame in root.blame} >= {("b", "accept.trials")}


def test_coins_that_differ_are_never_excused(tmp_path: Path) -> None:
    lines = toy_lines(SAMPLING)
    coin = trials(first_step(lines))[0]["coin"]
    verdict = diff(tmp_path, lines, toy_lines(replace(SAMPLING, coins={(0, 0, 1): coin + 1e-9})))
    root = verdict.roots[0].difference
    assert (root.phase, root.field, root.kind, root.inputs_equal) == ("accept", "coins", "structural", True)
    bonus = diff(tmp_path, lines, toy_lines(replace(SAMPLING, coins={(0, 0, -1): 0.123}))).roots[0].difference
    assert (bonus.field, bonus.kind, bonus.inputs_equal) == ("coins", "structural", True)


def test_coins_of_other_steps_are_no_root_of_their_own() -> None:
    """Who took more steps to get here has drawn more coins."""
    step = first_step(toy_lines(SAMPLING))
    other = copy.deepcopy(step)
    other["step"] = 1
    trials(other)[0]["coin"] = trials(step)[0]["coin"] / 2
    (found,) = [d for d in compared(step, other) if d.field == "coins"]
    assert not found.inputs_equal


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"threshold": 0.9}, "trials.threshold"),
        ({"target_prob": 0.9}, "trials.target_prob"),
        ({"draft_prob": 0.5}, "trials.draft_prob"),
    ],
)
def test_weights_that_differ_with_equal_logits_are_real(change: dict[str, float], field: str) -> None:
    step = first_step(toy_lines(SAMPLING))
    other = copy.deepcopy(step)
    trials(other)[0].update(change)
    found = next(d for d in compared(step, other) if d.phase == "accept")
    assert (found.field, found.kind, found.inputs_equal) == (field, "real", True)


def test_weights_that_follow_from_other_logits_are_inherited() -> None:
    step, other = (first_step(toy_lines(replace(SAMPLING, jitter=jitter))) for jitter in (0.0, 0.3))
    found = compared(step, other)
    roots = [d for d in found if d.inputs_equal]
    assert roots
    assert {d.phase for d in roots} == {"verify"}
    assert any(d.phase == "accept" for d in found)


def test_children_tried_in_another_number_or_order_are_structural() -> None:
    step = next(s for s in toy_lines(SAMPLING) if s["kind"] == "step" and len(trials(s)) > 1)
    fewer, turned = copy.deepcopy(step), copy.deepcopy(step)
    trials(fewer).pop()
    trials(turned).reverse()
    for other in (fewer, turned):
        found = next(d for d in compared(step, other) if d.phase == "accept")
        assert (found.field, found.kind) == ("trials", "structural")


@pytest.mark.parametrize(("gap", "kind"), [(1e-6, "near-tie"), (0.2, "real")])
def test_typical_acceptance_ties_where_two_children_are_as_likely(gap: float, kind: str) -> None:
    step = first_step(toy_lines(Toy("typical")))
    for rank, trial in enumerate(trials(step)[:2]):
        trial.update(target_prob=0.4 - gap * rank, threshold=0.1, accepted=True)
    other = copy.deepcopy(step)
    step["accept"]["visited"][0]["child"], other["accept"]["visited"][0]["child"] = 1, 2
    found = next(d for d in compared(step, other) if d.phase == "accept")
    assert (found.field, found.kind) == ("child", kind)


def test_typical_acceptance_ties_at_the_threshold() -> None:
    step = first_step(toy_lines(Toy("typical")))
    other = copy.deepcopy(step)
    trials(step)[0].update(target_prob=0.2 + 1e-6, threshold=0.2, accepted=True)
    trials(other)[0].update(target_prob=0.2 - 1e-6, threshold=0.2, accepted=False)
    found = next(d for d in compared(step, other) if d.phase == "accept")
    assert (found.field, found.kind) == ("trials.accepted", "near-tie")


def test_the_bonus_of_a_whole_other_share_is_real() -> None:
    step = first_step(toy_lines(SAMPLING))
    other = copy.deepcopy(step)
    drawn = other["accept"]["bonus_draw"]
    drawn["low"], drawn["high"], drawn["coin"] = 0.2, 0.6, 0.4
    step["accept"]["bonus_draw"].update(low=0.3, high=0.7, coin=0.4)
    other["accept"]["bonus_token"] += 1
    found = next(d for d in compared(step, other) if d.phase == "accept")
    assert (found.field, found.kind) == ("bonus_token", "real")
    assert found.margin_a == pytest.approx(0.3)
    other["accept"]["bonus_token"] -= 1
    found = next(d for d in compared(step, other) if d.phase == "accept")
    assert (found.field, found.kind) == ("bonus_draw.low", "real")


def test_another_rule_is_incomparable_and_never_equal(tmp_path: Path) -> None:
    a, b = toy_lines(SAMPLING), toy_lines(Toy("typical"))
    verdict = diff(tmp_path, a, b)
    assert verdict.exit_code == 3
    assert "sampling.rule: sampling -> lossy (typical acceptance)" in verdict.incomparable
    verdict = diff(tmp_path, a, b, DiffOptions(allowed=frozenset(["sampling"])))
    assert verdict.verdict == "different"


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.5), ("top_k", 3), ("top_p", 0.5), ("draft", "sampled"), ("lossless", False)]
)
def test_other_sampling_settings_are_incomparable(tmp_path: Path, name: str, value: object) -> None:
    lines = toy_lines(SAMPLING)
    other = copy.deepcopy(lines)
    other[0]["sampling"][name] = value
    verdict = diff(tmp_path, lines, other)
    assert verdict.exit_code == 3
    assert verdict.incomparable[0].startswith(f"sampling.{name}: ")


def test_another_seed_of_a_turn_is_incomparable(tmp_path: Path) -> None:
    lines = toy_lines(SAMPLING)
    other = copy.deepcopy(lines)
    other[1]["generator_seed"] += 1
    verdict = diff(tmp_path, lines, other)
    assert verdict.incomparable == ["turn 0 (prompt prompt-0): generator seed 0 -> 1"]


def test_strategy_and_batch_are_the_axis(tmp_path: Path) -> None:
    lines = toy_lines(Toy())
    other = toy_lines(Toy(batch_size=2))
    other[0]["cache_strategy"] = "replicate"
    for step in (line for line in other if line["kind"] == "step"):
        step["commit"]["strategy"] = "replicate"
    verdict = diff(tmp_path, lines, other)
    assert verdict.verdict == "equal"
    assert verdict.axis == ["batch_size: absent -> 2", "cache_strategy: in-place -> replicate"]


def test_what_an_older_writer_could_not_say_is_no_difference(tmp_path: Path) -> None:
    new = load(FUSED)
    new[0]["schema"] = "specscope.trace/1.1"
    new[0]["sampling"]["lossless"] = True
    new[0]["drafter"]["max_positions"] = 2048
    old = copy.deepcopy(new)
    old[0]["schema"] = "specscope.trace/1.0"
    del old[0]["sampling"]["lossless"], old[0]["drafter"]["max_positions"]
    verdict = diff(tmp_path, old, new)
    assert verdict.verdict == "equal"
    assert "sampling.lossless: absent -> True" in verdict.axis
    old[0]["schema"] = "specscope.trace/1.1"
    assert diff(tmp_path, old, new).exit_code == 0, "nor is what another writer leaves out"
    new[0]["sampling"]["top_k"] = 8
    verdict = diff(tmp_path, old, new)
    assert (verdict.exit_code, verdict.incomparable) == (3, ["sampling.top_k: absent -> 8"]), "absent says: all"
    old[0]["schema"] = "specscope.trace/1.0"
    assert diff(tmp_path, old, new).exit_code == 0


def test_a_run_without_drafts_is_another_sample(tmp_path: Path) -> None:
    lines = toy_lines(SAMPLING)
    other = toy_lines(replace(SAMPLING, coins={(turn, 0, -1): 0.999 for turn in range(2)}))
    other[0]["drafter"] = {"kind": "none"}
    verdict = diff(tmp_path, lines, other)
    assert verdict.exit_code == 4
    assert (
        "turn 1 (prompt prompt-1): the outputs differ; a run that drafts nothing draws other coins"
        in verdict.uncovered[-1]
    )


# Drafts without levels.


def test_lookups_compare_their_trees_alone(tmp_path: Path) -> None:
    lines = toy_lines(Toy(levels=False))
    other = copy.deepcopy(lines)
    step = first_step(other)
    step["tree"]["tokens"][-1] = step["tensors"]["token_ids"][-1] = (step["tree"]["tokens"][-1] + 1) % 16
    verdict = diff(tmp_path, lines, other)
    root = verdict.roots[0].difference
    assert (root.phase, root.field, root.kind, root.inputs_equal) == ("tree", "nodes", "structural", True)


def test_a_lookup_that_was_fed_other_tokens_is_found_there() -> None:
    step = first_step(toy_lines(Toy(levels=False)), lambda s: bool(s["step"] == 1))
    other = copy.deepcopy(step)
    other["draft"]["inputs"]["tokens"][0] = 15
    other["tree"]["tokens"][-1] = other["tensors"]["token_ids"][-1] = 15
    found = [(d.phase, d.inputs_equal) for d in compared(step, other)]
    assert found[:2] == [("draft", True), ("tree", False)]
