"""Trees of several drafters: who proposed a node is judged, compared and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.called import specscope
from support.proposer_mutants import propose_together, rename, steps_of
from support.traces import EAGER, FUSED, Lines, load, store

from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.oracle.check import check_trace

RULES = {"tree.proposed-by", "tree.lookup-is-in-text"}


def violated(lines: Lines, path: Path) -> set[str]:
    report = check_trace(store(lines, path))
    return {name for name, tally in report.invariants.items() if tally.failed}


def test_an_honest_trace_of_two_drafters_passes_all_that_judges_one(tmp_path: Path) -> None:
    report = check_trace(store(propose_together(load(FUSED)), tmp_path / "two.jsonl"))
    assert not any(tally.failed for tally in report.invariants.values())
    assert all(report.invariants[name].passed == report.num_steps for name in RULES)


WRONG: dict[str, tuple[Callable[[Lines], None], str]] = {
    "a candidate, said to be only looked up": (rename(3, "ngram"), "tree.proposed-by"),
    "a stranger": (rename(3, "medusa"), "tree.proposed-by"),
    "nobody": (rename(3, ""), "tree.proposed-by"),
    "twice": (rename(3, "eagle3+eagle3"), "tree.proposed-by"),
    "in another order": (rename(3, "ngram+eagle3"), "tree.proposed-by"),
    "the root": (rename(0, "eagle3"), "tree.proposed-by"),
    "not in the text": (rename(-1, "eagle3+ngram"), "tree.lookup-is-in-text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_proposer_is_found(tmp_path: Path, case: str) -> None:
    change, invariant = WRONG[case]
    lines = load(FUSED)
    change(lines)
    assert invariant in violated(lines, tmp_path / "wrong.jsonl")


def test_a_node_that_is_no_candidate_is_not_the_heads(tmp_path: Path) -> None:
    lines = propose_together(load(FUSED))
    steps_of(lines)[0]["tree"]["tokens"][-1] = 4
    assert violated(lines, tmp_path / "stranger.jsonl") >= {"tree.proposed-by", "tree.nodes-were-proposed"}


def test_only_a_second_proposer_makes_a_score_better_than_the_candidates(tmp_path: Path) -> None:
    lines = propose_together(load(FUSED))
    tree = steps_of(lines)[0]["tree"]
    tree["scores"][-1] += 0.01
    tree["logprobs"][-1] += 0.01
    assert violated(lines, tmp_path / "better.jsonl") == {"tree.proposed-by"}
    tree["scores"][-1] -= 0.02
    tree["logprobs"][-1] -= 0.02
    tree["proposed_by"][-1] = "eagle3+ngram"
    assert "tree.proposed-by" in violated(lines, tmp_path / "worse.jsonl")


def test_a_better_candidate_must_not_be_left_out_for_a_node_of_the_lookup(tmp_path: Path) -> None:
    lines = propose_together(load(FUSED))
    step = steps_of(lines)[0]
    level = step["draft"]["levels"][-1]
    at = next(n for n, token in enumerate(level["tokens"]) if token not in step["tree"]["tokens"])
    level["logprobs"][at] = 0.0
    assert "tree.best-of-candidates" in violated(lines, tmp_path / "left.jsonl")


def test_who_proposed_a_node_is_compared_where_both_say_it(tmp_path: Path) -> None:
    honest = store(propose_together(load(FUSED)), tmp_path / "honest.jsonl")
    assert diff_traces(honest, store(propose_together(load(EAGER)), tmp_path / "eager.jsonl")).exit_code == 0
    wrong = load(FUSED)
    rename(3, "ngram")(wrong)
    verdict = diff_traces(honest, store(wrong, tmp_path / "wrong.jsonl"))
    assert verdict.exit_code == 1
    root = verdict.roots[0]
    assert (root.difference.phase, root.difference.field, root.wrong) == ("tree", "proposed_by", "candidate")
    silent = propose_together(load(FUSED))
    for step in steps_of(silent):
        del step["tree"]["proposed_by"]
    assert diff_traces(honest, store(silent, tmp_path / "silent.jsonl")).exit_code == 0


def test_a_writer_that_does_not_say_who_proposed_is_not_judged_by_it(tmp_path: Path) -> None:
    lines = propose_together(load(FUSED))
    for step in steps_of(lines):
        del step["tree"]["proposed_by"]
    report = check_trace(store(lines, tmp_path / "silent.jsonl"))
    assert all(report.invariants[name].passed == 0 for name in RULES)
    assert all(report.invariants[name].skipped == report.num_steps for name in RULES)


def test_show_names_the_proposers(tmp_path: Path) -> None:
    path = store(propose_together(load(FUSED)), tmp_path / "two.jsonl")
    assert "eagle3" in specscope("show", path, "--turn", "0", "--step", "0").out
    assert "eagle3" not in specscope("show", FUSED, "--turn", "0", "--step", "0").out
