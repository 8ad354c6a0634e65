"""What a grammar allowed, as it is recorded: judged by the oracle, compared by the diff, readable by the base."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.guided_mutants import WRONGLY_GUIDED, at, guided_steps, guides
from support.silent import ABOUT_GRAMMARS
from support.traces import EAGER, FUSED, load, store

from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.oracle.check import check_trace

Change = Callable[[dict[str, Any]], Any]
Lines = list[dict[str, Any]]


def test_a_guided_run_is_sound_and_every_step_is_judged(tmp_path: Path) -> None:
    lines = guides(load(FUSED))
    report = check_trace(store(lines, tmp_path / "guided.jsonl"))
    assert report.num_violations == 0
    for name in ABOUT_GRAMMARS:
        tally = report.invariants[name]
        assert (tally.passed, tally.skipped) == (len(guided_steps(lines)), 0), name


WAYS = [(invariant, way) for invariant, ways in WRONGLY_GUIDED.items() for way in ways]


@pytest.mark.parametrize(("invariant", "way"), WAYS)
def test_each_way_to_guide_wrongly_violates_its_own_invariant(tmp_path: Path, invariant: str, way: str) -> None:
    lines = load(FUSED)
    WRONGLY_GUIDED[invariant][way](lines)
    report = check_trace(store(lines, tmp_path / "wrong.jsonl"))
    first = report.invariants[invariant].first
    assert first is not None
    assert first.witness
    assert "does not fit together" not in first.witness, "the rule itself, and not a crash of it"


def test_what_was_accepted_behind_the_end_may_be_forbidden_where_it_was_cut(tmp_path: Path) -> None:
    lines = load(FUSED)
    WRONGLY_GUIDED["guided.path-allowed"]["behind the end"](lines)
    step = next(step for step in guided_steps(lines) if step["guided"]["ends"])
    for kept, fires in ((1, False), (2, True)):
        step["stop"]["kept"] = kept
        report = check_trace(store(lines, tmp_path / f"{kept}.jsonl"))
        assert bool(report.invariants["guided.path-allowed"].failed) == fires


def test_what_a_writer_promised_and_left_out_is_missed_and_never_passed(tmp_path: Path) -> None:
    lines = guides(load(FUSED))
    for step in guided_steps(lines):
        del step["guided"]
    report = check_trace(store(lines, tmp_path / "unsaid.jsonl"))
    assert report.invariants["run.capabilities"].failed
    for name in ABOUT_GRAMMARS:
        tally = report.invariants[name]
        assert (tally.passed, tally.skipped) == (0, len(guided_steps(lines)))


def test_a_banned_token_among_the_first_tokens_best_needs_a_grammar_or_a_processor(tmp_path: Path) -> None:
    for guided, fires in ((True, False), (False, True)):
        lines = guides(load(FUSED)) if guided else load(FUSED)
        start = next(line for line in lines if line["kind"] == "turn_start")
        start["prefill"]["top_logits"][1] = "-Infinity"
        failed = check_trace(store(lines, tmp_path / f"{guided}.jsonl")).invariants["turn.prefill"].failed
        assert bool(failed) == fires


def test_runs_that_follow_one_grammar_are_compared_as_any_others(tmp_path: Path) -> None:
    eager, fused = (store(guides(load(run)), tmp_path / run.name) for run in (EAGER, FUSED))
    verdict = diff_traces(eager, fused)
    assert (verdict.verdict, verdict.roots) == (diff_traces(EAGER, FUSED).verdict, [])


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (lambda g: g["before"].update(digest="f" * 16), "guided.before"),
        (lambda g: g["returned"].update(digest="f" * 16), "guided.returned"),
        (lambda g: g["mask_digests"].__setitem__(3, "f" * 16), "guided.mask"),
        (lambda g: g["applied_digests"].__setitem__(3, "f" * 16), "guided.applied"),
        (lambda g: g.update(after=at(99)), "guided.after"),
    ],
)
def test_a_difference_of_what_was_allowed_is_a_root_at_its_step(tmp_path: Path, place: Change, field: str) -> None:
    lines = guides(load(FUSED))
    step = guided_steps(lines)[2]
    place(step["guided"])
    verdict = diff_traces(store(guides(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    root = verdict.roots[0]
    assert (root.difference.field, root.difference.kind) == (field, "structural")
    assert (root.place.turn, root.place.step_b) == (step["turn"], step["step"])


def test_a_slot_that_only_one_side_allows_is_told_with_its_path(tmp_path: Path) -> None:
    lines = guides(load(FUSED))
    guided = guided_steps(lines)[2]["guided"]
    for name in ("slots", "num_allowed", "mask_digests", "applied_digests"):
        guided[name].pop()
    verdict = diff_traces(store(guides(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    difference = verdict.roots[0].difference
    assert (difference.field, difference.b) == ("guided.mask", "forbidden")
    assert difference.node


@pytest.mark.parametrize("change", [{"digest": "b" * 32}, {"kind": "lark"}, None])
def test_runs_of_other_grammars_or_none_cannot_be_compared(tmp_path: Path, change: dict[str, str] | None) -> None:
    lines = guides(load(FUSED))
    lines[0]["schema"] = "specscope.trace/1.4"  # whose writers say by silence that there is no grammar
    if change is None:
        del lines[0]["grammar"]
    else:
        lines[0]["grammar"] |= change
    verdict = diff_traces(store(guides(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    assert verdict.verdict == "incomparable"
    assert any("grammar" in line for line in verdict.incomparable)


def test_a_grammar_that_may_differ_keeps_what_follows_from_it_out_of_the_comparison(tmp_path: Path) -> None:
    lines = guides(load(FUSED))
    lines[0]["grammar"]["digest"] = "b" * 32
    step = guided_steps(lines)[2]
    step["guided"]["mask_digests"][3] = step["guided"]["applied_digests"][3] = "f" * 16
    options = DiffOptions(allowed=frozenset(["grammar"]))
    paths = store(guides(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl")
    verdict = diff_traces(*paths, options)
    assert not [root for root in verdict.roots if root.difference.field.startswith("guided")]
    assert set(verdict.compared) == {"tree", "tensors"}, "drafts, logits and decisions follow from the grammar"


def test_masks_that_one_side_did_not_record_are_named_as_not_compared(tmp_path: Path) -> None:
    lines = guides(load(FUSED))
    for step in guided_steps(lines):
        del step["guided"]
    lines[0]["capabilities"].remove("guided")
    verdict = diff_traces(store(guides(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    assert any("record guided in 37 places" in line for line in verdict.unjudged), verdict.unjudged


def by_another_engine(lines: Lines) -> Lines:
    """As another writer records it: another library, digests over other bytes, and no second look at the logits."""
    lines[0]["engine"] = "another 1.0"
    lines[0]["grammar"]["library"] = "xgrammar"
    for step in guided_steps(lines):
        guided = step["guided"]
        del guided["returned"], guided["applied_digests"]
        guided["mask_digests"] = [digest[::-1] for digest in guided["mask_digests"]]
        for state in (guided["before"], guided["after"]):
            state["digest"] = state["digest"][::-1]
    for start in (line for line in lines if line["kind"] == "turn_start"):
        start["prefill"]["guided"]["digest"] = start["prefill"]["guided"]["digest"][::-1]
    return lines


def test_another_engines_digests_are_no_difference_and_its_counts_are(tmp_path: Path) -> None:
    ours = store(guides(load(EAGER)), tmp_path / "ours.jsonl")
    theirs = by_another_engine(guides(load(FUSED)))
    path = store(theirs, tmp_path / "theirs.jsonl")
    report, verdict = check_trace(path), diff_traces(ours, path)
    assert report.num_violations == 0
    for name in ("guided.masks-applied", "guided.rolled-back"):
        assert (report.invariants[name].passed, report.invariants[name].skipped) == (0, len(guided_steps(theirs)))
    assert (verdict.verdict, verdict.roots) == (diff_traces(EAGER, FUSED).verdict, [])
    guided_steps(theirs)[2]["guided"]["num_allowed"][3] = 7
    root = diff_traces(ours, store(theirs, tmp_path / "counts.jsonl")).roots[0]
    assert (root.difference.field, root.difference.a, root.difference.b) == ("guided.mask", "100 tokens", "7 tokens")


def test_a_trace_from_before_there_were_grammars_says_nothing_of_one(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["schema"] = "specscope.trace/1.3"
    verdict = diff_traces(store(guides(load(EAGER)), tmp_path / "eager.jsonl"), store(lines, tmp_path / "fused.jsonl"))
    assert not any("grammar" in line for line in verdict.incomparable)


def test_the_base_alone_judges_a_guided_trace(tmp_path: Path) -> None:
    path = store(guides(load(FUSED)), tmp_path / "guided.jsonl")
    program = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'llguidance', 'transformers'): sys.modules[name] = None\n"
        "from specscope.tracer.oracle.check import check_trace\n"
        f"report = check_trace({str(path)!r})\n"
        "assert report.num_violations == 0 and report.invariants['guided.masks-applied'].passed\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
