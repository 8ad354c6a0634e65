"""The oracle on rules that draw: honest runs pass, and every way to cheat with a coin or a threshold is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.pipeline_mutants import PIPELINE_MUTANTS
from support.silent import ABOUT_CUSTODY, ABOUT_ROWS, NOT_HERE
from support.toy_run import Toy, toy_lines
from support.traces import Lines, accepts_at_least, drop_last_node, first_step, store

from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport

Step = dict[str, Any]
SAMPLING = Toy(rule="sampling")
WARM = Toy(rule="sampling", temperature=2.0)
DRAWN = Toy(rule="sampling", draft="sampled", temperature=0.8)
TYPICAL = Toy(rule="typical")
ABOUT_DRAWS = {
    *("accept.trials", "accept.coins-distinct", "accept.thresholds", "accept.target-probs"),
    *("accept.probs-follow-logits", "run.coins-fresh", "rows.draws-anew"),
}


def violated(report: OracleReport) -> set[str]:
    return {name for name, tally in report.invariants.items() if tally.failed}


def check(tmp_path: Path, lines: Lines) -> OracleReport:
    return check_trace(store(lines, tmp_path / "toy.jsonl"))


def run_with(toy: Toy, which: Callable[[Step], bool]) -> Lines:
    """The toy's run with the first seed at which it has such a step."""
    runs = (toy_lines(replace(toy, seed=seed)) for seed in range(50))
    return next(run for run in runs if any(line["kind"] == "step" and which(line) for line in run))


HONEST = [
    Toy(rule=rule, draft=draft, kind=kind, temperature=temperature, top_k=top_k, seed=seed)
    for rule, draft in (("sampling", "point-mass"), ("sampling", "sampled"), ("typical", "point-mass"))
    for kind in ("static", "dynamic")
    for seed, (temperature, top_k) in enumerate([(1.0, None), (0.6, None), (1.5, 4)])
]


#: What a toy has no field for: custody of caches it does not have, rows, generators, logits of its trials, texts,
#: costs, graphs, files.
NOT_IN_A_TOY = {
    *(ABOUT_CUSTODY | ABOUT_ROWS | NOT_HERE | PIPELINE_MUTANTS.keys()),
    *("accept.probs-follow-logits", "rows.draws-anew", "run.tensor-files"),
}


def about(toy: Toy) -> set[str]:
    """What says something of a toy's kind alone."""
    dynamic = {"draft.frontier-is-best", "tree.best-of-candidates"} if toy.kind != "dynamic" else set[str]()
    return dynamic | (set() if toy.draft == "sampled" else {"accept.draft-probs"})


@pytest.mark.parametrize("toy", HONEST, ids=lambda t: f"{t.rule}-{t.draft}-{t.kind}-{t.temperature}")
def test_an_honest_run_passes_everything_and_skips_nothing(tmp_path: Path, toy: Toy) -> None:
    report = check(tmp_path, toy_lines(toy))
    assert not violated(report)
    silent = NOT_IN_A_TOY | about(toy)
    assert not any(report.invariants[name].passed for name in silent)
    judged = {name: tally for name, tally in report.invariants.items() if name not in silent}
    assert all(tally.passed and not tally.skipped for tally in judged.values())


def test_rules_about_draws_say_nothing_of_a_greedy_run(tmp_path: Path) -> None:
    report = check(tmp_path, toy_lines(Toy()))
    silent = {name for name, t in report.invariants.items() if t.passed == t.failed == t.skipped == 0}
    assert silent - about(Toy()) == ABOUT_DRAWS | NOT_HERE | PIPELINE_MUTANTS.keys() | {"run.tensor-files"}


def test_without_the_logsumexp_the_probabilities_are_skipped_and_not_passed(tmp_path: Path) -> None:
    lines = toy_lines(SAMPLING)
    for step in (line for line in lines if line["kind"] == "step"):
        del step["verify"]["logsumexp"]
    tally = check(tmp_path, lines).invariants["accept.target-probs"]
    assert (tally.passed, tally.failed, tally.skipped) == (0, 0, 8)


def trials(step: Step, visit: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = step["accept"]["visited"][visit]["trials"]
    return found


def rejects_first(step: Step) -> bool:
    """Steps whose root's first child was rejected, so that a second was tried."""
    return not trials(step)[0]["accepted"] and len(trials(step)) > 1


def rejects_all(step: Step) -> bool:
    return all(not trial["accepted"] for trial in trials(step))


def trial_with(**changes: Any) -> Callable[[Step], None]:
    return lambda step: trials(step)[0].update(changes)


def flip(step: Step) -> None:
    trials(step)[0]["accepted"] = not trials(step)[0]["accepted"]


def stray_trial(step: Step) -> None:
    """The last trial speaks of a slot that hangs elsewhere."""
    trials(step)[-1]["slot"] = len(step["tree"]["tokens"]) - 1


def skip_elder(step: Step) -> None:
    trials(step).pop(0)


def go_on_after_acceptance(step: Step) -> None:
    """One more child is tried behind the accepted one."""
    tried = trials(step)
    tried.append({**tried[-1], "slot": tried[-1]["slot"] + 1})


def reuse_threshold(step: Step) -> None:
    """The second child's threshold is its plain probability: the first one's was not given back."""
    trials(step)[1]["threshold"] = trials(step)[1]["target_prob"]


def other_child(step: Step) -> None:
    step["accept"]["visited"][0]["child"] = None


def stop_early(step: Step) -> None:
    step["accept"]["visited"].pop()


def jump(step: Step) -> None:
    step["accept"]["visited"][1]["slot"] = 5


def drop_last(step: Step) -> None:
    step["accept"]["path"].pop()


def redraw_rejected(step: Step) -> None:
    """The bonus is a token that was just rejected, as from the whole distribution instead of what is left."""
    step["accept"]["bonus_token"] = step["tree"]["tokens"][trials(step)[0]["slot"]]


def draw_with(**changes: Any) -> Callable[[Step], None]:
    return lambda step: step["accept"]["bonus_draw"].update(changes)


def whole_share(step: Step) -> None:
    """The share is not renormalised: half as wide as it was."""
    drawn = step["accept"]["bonus_draw"]
    drawn["high"] = drawn["low"] + (drawn["high"] - drawn["low"]) / 2
    drawn["coin"] = drawn["low"]


def anywhere(_: Step) -> bool:
    return True


ONE, TWO = accepts_at_least(1), accepts_at_least(2)


def bonus_is_top(step: Step) -> bool:
    """Steps whose bonus token is the teacher's best at its slot, so that its probability is recorded."""
    accept = step["accept"]
    tops: list[int] = step["verify"]["top_tokens"][accept["bonus_slot"]]
    return bool(accept["bonus_token"] == tops[0])


def no_favourite(step: Step) -> bool:
    """Steps whose first child is not the teacher's best token at the root."""
    return bool(step["tree"]["tokens"][1] != step["verify"]["top_tokens"][0][0])


def both_best_tried(step: Step) -> bool:
    """Steps that tried the teacher's two best tokens at the root, which it tells apart."""
    tried = {step["tree"]["tokens"][trial["slot"]] for trial in trials(step)}
    best, second = step["verify"]["top_logits"][0]
    return best - second > 0.5 and set(step["verify"]["top_tokens"][0]) <= tried


def forget_temperature(step: Step) -> None:
    """The second's probability stands to the best's as it would at temperature 1."""
    verify = step["verify"]
    by_token = {step["tree"]["tokens"][trial["slot"]]: trial for trial in trials(step)}
    best, second = (by_token[token] for token in verify["top_tokens"][0])
    logits = verify["top_logits"][0]
    second["target_prob"] = best["target_prob"] * math.exp(logits[1] - logits[0])


CHEATS: list[tuple[str, Toy, Callable[[Step], bool], Callable[[Step], Any], str]] = [
    ("accept.trials", SAMPLING, anywhere, flip, "was"),
    ("accept.trials", SAMPLING, anywhere, trial_with(coin=1.0), "wanted one in"),
    ("accept.trials", SAMPLING, anywhere, lambda s: trials(s)[0].pop("coin"), "no coin"),
    ("accept.trials", SAMPLING, anywhere, stray_trial, "no child of it"),
    ("accept.trials", SAMPLING, rejects_first, skip_elder, "trial 0"),
    ("accept.trials", SAMPLING, lambda s: trials(s)[0]["accepted"], go_on_after_acceptance, "wanted 1"),
    ("accept.trials", SAMPLING, rejects_all, lambda s: trials(s).pop(), "got 2 entries, wanted 3"),
    ("accept.trials", SAMPLING, anywhere, lambda s: s["accept"]["visited"][0].pop("trials"), "no trials were recorded"),
    ("accept.trials", TYPICAL, anywhere, trial_with(coin=0.5), "draws none"),
    ("accept.trials", TYPICAL, anywhere, flip, "probability"),
    ("accept.trials", TYPICAL, anywhere, lambda s: trials(s).pop(), "got 2 entries, wanted 3"),
    ("accept.thresholds", SAMPLING, anywhere, trial_with(threshold=0.9876), "threshold 0.9876"),
    ("accept.thresholds", SAMPLING, rejects_first, reuse_threshold, "threshold"),
    ("accept.thresholds", SAMPLING, anywhere, trial_with(threshold=1.5), "wanted 0 to 1"),
    ("accept.thresholds", SAMPLING, anywhere, trial_with(target_prob="NaN"), "target_prob nan"),
    ("accept.thresholds", DRAWN, anywhere, trial_with(draft_prob=0.98765), "threshold"),
    ("accept.thresholds", TYPICAL, anywhere, trial_with(threshold=0.31), "wanted"),
    ("accept.target-probs", SAMPLING, anywhere, trial_with(target_prob=0.98765), "the logits at slot 0 give"),
    ("accept.target-probs", DRAWN, no_favourite, trial_with(target_prob=0.75), "the logits at slot 0 give"),
    ("accept.target-probs", WARM, both_best_tried, forget_temperature, "and temperature 2 the second is"),
    ("accept.walk", SAMPLING, ONE, other_child, "its trials give"),
    ("accept.walk", SAMPLING, ONE, stop_early, "was not there"),
    ("accept.walk", SAMPLING, ONE, jump, "the walk stands at slot 5"),
    ("accept.walk", SAMPLING, ONE, drop_last, "the walk gives"),
    ("accept.walk", TYPICAL, TWO, drop_last, "the walk gives"),
    ("accept.bonus", SAMPLING, anywhere, lambda s: s["accept"].pop("bonus_draw"), "no draw was recorded"),
    ("accept.bonus", SAMPLING, anywhere, draw_with(coin=-0.5), "wanted one in"),
    ("accept.bonus", SAMPLING, anywhere, draw_with(high=1.25), "its share lies"),
    ("accept.bonus", SAMPLING, anywhere, draw_with(coin=0.0, low=1e-6), "outside"),
    ("accept.bonus", SAMPLING, rejects_all, redraw_rejected, "although slot 1"),
    ("accept.bonus", DRAWN, rejects_all, redraw_rejected, "was drawn although"),
    ("accept.bonus", SAMPLING, bonus_is_top, whole_share, "has a share of"),
    ("accept.bonus", TYPICAL, bonus_is_top, whole_share, "has a share of"),
    ("accept.bonus", SAMPLING, anywhere, lambda s: s["accept"].update(bonus_token=99), "wanted 0..15"),
    ("accept.bonus", SAMPLING, ONE, lambda s: s["accept"].update(bonus_slot=0), "the last accepted"),
    ("accept.rule", SAMPLING, anywhere, lambda s: s["accept"].update(rule="greedy"), "the run's is sampling"),
]


@pytest.mark.parametrize(("invariant", "toy", "which", "cheats", "words"), CHEATS)
def test_a_cheat_is_named(
    tmp_path: Path,
    invariant: str,
    toy: Toy,
    which: Callable[[Step], bool],
    cheats: Callable[[Step], Any],
    words: str,
) -> None:
    lines = run_with(toy, which)
    step = first_step(lines, which)
    cheats(step)
    report = check(tmp_path, lines)
    assert invariant in violated(report)
    first = report.invariants[invariant].first
    assert first is not None
    assert (first.turn, first.step) == (step["turn"], step["step"])
    assert words in first.witness


def test_a_second_drawn_child_the_drafter_overrates_cannot_be_accepted(tmp_path: Path) -> None:
    """Behind a rejection p is max(0, p - q), so that where q exceeds p nothing is left."""

    def overrated(step: Step) -> bool:
        tried = trials(step)
        return len(tried) > 1 and tried[1]["target_prob"] < tried[1]["draft_prob"] - 0.01

    lines = run_with(DRAWN, overrated)
    step = first_step(lines, overrated)
    assert trials(step)[1]["threshold"] == 0
    trials(step)[1]["threshold"] = 0.25
    report = check(tmp_path, lines)
    assert "accept.thresholds" in violated(report)


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (lambda start: start["prefill"]["draw"].update(coin=0.99999), "outside its share"),
        (lambda start: start["prefill"]["top_logits"].__setitem__(0, "NaN"), "not finite"),
    ],
)
def test_the_first_tokens_draw_is_judged_too(tmp_path: Path, breaks: Callable[[Step], Any], words: str) -> None:
    lines = toy_lines(SAMPLING)
    breaks(lines[1])
    first = check(tmp_path, lines).invariants["turn.prefill"].first
    assert first is not None
    assert words in first.witness


def test_a_drawn_first_token_need_not_be_one_of_the_best(tmp_path: Path) -> None:
    lines = toy_lines(SAMPLING)
    lines[1]["prefill"]["top_tokens"] = [14, 15]
    assert "turn.prefill" not in violated(check(tmp_path, lines))
    greedy = toy_lines(Toy())
    greedy[1]["prefill"]["top_tokens"] = [14, 15]
    assert "turn.prefill" in violated(check(tmp_path, greedy))


def test_a_token_that_a_processor_banned_may_be_second(tmp_path: Path) -> None:
    lines = toy_lines(Toy())
    lines[1]["prefill"]["top_logits"][1] = "-Infinity"
    assert "turn.prefill" in violated(check(tmp_path, lines))
    lines[0]["sampling"]["processors"] = {"suppress_tokens": [3]}
    assert "turn.prefill" not in violated(check(tmp_path, lines))


# Trees and commits.


def one_more_node(step: Step) -> None:
    """A copy of the last node, everywhere."""
    tree, tensors, verify = step["tree"], step["tensors"], step["verify"]
    for name in ("tokens", "parents", "depths", "logprobs", "scores"):
        tree[name].append(tree[name][-1])
    tensors["num_slots"] += 1
    tensors["padded_slots"] += 1
    for name in ("positions", "token_ids", "prefix_visible", "mask_rows"):
        tensors[name].append(tensors[name][-1])
    for name in ("argmax", "top_tokens", "top_logits", "logsumexp", "entropy"):
        verify[name].append(verify[name][-1])


def moved(step: Step) -> None:
    """The last leaf hangs elsewhere."""
    step["tree"]["parents"][-1] = 3


@pytest.mark.parametrize(
    ("toy", "breaks", "words"),
    [
        (Toy(), drop_last_node, "1 nodes of the static tree are missing, child ranks [0, 0, 0] first"),
        (Toy(), moved, "child ranks [2, 0] are no node of the static tree"),
        (Toy(levels=False), moved, "child ranks [2, 0] are no node of the static tree"),
        (Toy(kind="chain", choices=((0,), (0, 0))), drop_last_node, "nodes of the chain tree are missing"),
        (Toy(kind="dynamic"), lambda s: s["tree"]["depths"].__setitem__(-1, 4), "depth 4, wanted at most 3"),
        (Toy(kind="dynamic"), one_more_node, "8 nodes, the budget is 7"),
    ],
)
def test_a_tree_of_another_shape_is_named(tmp_path: Path, toy: Toy, breaks: Callable[[Step], Any], words: str) -> None:
    lines = toy_lines(toy)
    breaks(first_step(lines))
    first = check(tmp_path, lines).invariants["tree.shape-is-policy"].first
    assert first is not None
    assert words in first.witness


def test_a_lookup_may_draft_less_than_the_whole_tree(tmp_path: Path) -> None:
    lines = toy_lines(Toy(levels=False))
    drop_last_node(first_step(lines))
    assert "tree.shape-is-policy" not in violated(check(tmp_path, lines))


def test_a_chain_has_a_shape_without_its_choices(tmp_path: Path) -> None:
    lines = toy_lines(Toy(kind="chain", choices=((0,), (0, 0))))
    del lines[0]["tree_policy"]["choices"]
    assert not violated(check(tmp_path, lines))
    first_step(lines)["tree"]["parents"][2] = 0
    assert "tree.shape-is-policy" in violated(check(tmp_path, lines))


def test_drafts_without_levels_skip_what_looks_at_levels(tmp_path: Path) -> None:
    report = check(tmp_path, toy_lines(Toy(levels=False)))
    assert not violated(report)
    silent = about(Toy(kind="dynamic")) | ABOUT_CUSTODY | ABOUT_ROWS
    assert {name for name, t in report.invariants.items() if t.skipped} - silent == {
        *(("draft.frontier-is-best", "tree.best-of-candidates") if Toy().kind == "dynamic" else ()),
        "draft.scores-finite",
        "tree.nodes-were-proposed",
    }


def test_a_fallback_says_why_the_strategy_is_another_and_is_counted(tmp_path: Path) -> None:
    lines = toy_lines(Toy(fallback_at=1))
    assert not violated(check(tmp_path, lines))
    end = next(line for line in lines if line["kind"] == "turn_end")
    del end["num_fallbacks"]
    first = check(tmp_path, lines).invariants["turn.metrics"].first
    assert first is not None
    assert first.witness == "num_fallbacks: got 0, the steps give 1"
    del first_step(lines, lambda step: bool(step["step"] == 1))["commit"]["fallback"]
    first = check(tmp_path, lines).invariants["commit.strategy"].first
    assert first is not None
    assert "full-reorder was done, asked for was in-place" in first.witness


def test_what_the_manifest_did_not_ask_for_is_not_judged(tmp_path: Path) -> None:
    lines = toy_lines(Toy())
    del lines[0]["cache_strategy"]
    tally = check(tmp_path, lines).invariants["commit.strategy"]
    assert (tally.passed, tally.skipped) == (0, 8)
