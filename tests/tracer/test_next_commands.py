"""The commands that a diff ends with: what the pair allows, and nothing that would be refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from support.traces import EAGER, FAULTY, FUSED, Lines, first_step, load, store

from specscope.tracer.compare.commands import next_commands
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle import report as oracle_report
from specscope.tracer.oracle.check import check_trace


def words_of(path: Path, other: Path) -> list[str]:
    """The subcommands named next."""
    return [line.split()[1] for line in diff_traces(path, other, DiffOptions(tolerance=1e-3)).next]


def with_other_logits(lines: Lines) -> Lines:
    """A copy whose teacher says otherwise at one node: two opinions, of which no record tells the wrong one."""
    other = copy.deepcopy(lines)
    first_step(other)["verify"]["top_logits"][0] = [99.0, 98.0]
    return other


def test_another_opinion_is_bisected_and_a_broken_rule_is_looked_at(tmp_path: Path) -> None:
    assert words_of(EAGER, store(with_other_logits(load(FUSED)), tmp_path / "b.jsonl")) == ["show", "view", "bisect"]
    assert words_of(EAGER, FAULTY) == ["show", "view"]
    assert words_of(EAGER, FUSED) == []


def test_what_cannot_be_run_again_is_not_to_be_bisected(tmp_path: Path) -> None:
    for name, change in (("source", {"source": None}), ("redaction", {})):
        a, b = load(EAGER), with_other_logits(load(FUSED))
        for lines in (a, b):
            lines[0]["teacher"].update(change)
            lines[0].update({"redaction": "0123456789abcdef"} if name == "redaction" else {})
        found = words_of(store(a, tmp_path / f"{name}-a.jsonl"), store(b, tmp_path / f"{name}-b.jsonl"))
        assert found == ["show", "view"], name


def test_what_a_replay_takes_from_the_recording_it_is_not_asked_about(tmp_path: Path) -> None:
    stopped = load(FUSED)
    last = next(line for line in reversed(stopped) if line["kind"] == "step" and line["stop"].get("reason"))
    last["stop"]["reason"] = "stop_string"
    assert words_of(EAGER, store(stopped, tmp_path / "stopped.jsonl")) == ["show", "view"]
    root = diff_traces(EAGER, FAULTY).roots[0]
    with TraceReader(EAGER) as a, TraceReader(FUSED) as b:
        for phase, field, words in (
            ("tensors", "positions", ["show", "view", "replay"]),
            ("accept", "path", ["show", "view", "replay"]),
            ("accept", "coins", ["show", "view"]),
            ("stop", "kept", ["show", "view"]),
            ("verify", "prefill.top_logits", ["show", "view", "bisect"]),
            ("verify", "prefill.draw.coin", ["show", "view"]),
        ):
            found = root.difference.model_copy(update={"phase": phase, "field": field})
            unblamed = root.model_copy(update={"difference": found, "wrong": "neither"})
            assert [
                line.split()[1] for line in next_commands(a, b, roots=[unblamed], violations=[], incomparable=[])
            ] == words


def test_a_broken_rule_without_a_root_is_checked_on_its_side(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[-2]["num_accepted"] += 1
    path = store(lines, tmp_path / "b.jsonl")
    assert diff_traces(EAGER, path).next == [f"specscope check {path}"]


def test_a_field_that_differs_is_named_to_be_allowed(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["seed"] = 7
    path = store(lines, tmp_path / "b.jsonl")
    assert diff_traces(EAGER, path).next == [f"specscope diff {EAGER} {path} --allow seed"]


def test_all_fields_that_differ_are_named_at_once(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0].update(seed=7, dtype="bfloat16")
    path = store(lines, tmp_path / "b.jsonl")
    verdict = diff_traces(EAGER, path)
    assert verdict.next == [f"specscope diff {EAGER} {path} --allow dtype --allow seed"]
    allowed = DiffOptions(allowed=frozenset({"dtype", "seed"}))
    assert diff_traces(EAGER, path, allowed).verdict != "incomparable"


def test_blame_that_was_cut_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [line for line in diff_traces(EAGER, FAULTY).uncovered if "nobody is blamed" in line]
    monkeypatch.setattr(oracle_report, "MOST_KEPT", 3)
    verdict = diff_traces(EAGER, FAULTY)
    assert verdict.uncovered == ["the candidate violates invariants in more than 3 steps: after them nobody is blamed"]
    assert (verdict.verdict, verdict.exit_code) == ("different", 1)


def test_steps_that_cannot_be_compared_are_remembered_however_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle_report, "MOST_KEPT", 0)
    lines = load(FUSED)
    for step in (line for line in lines if line["kind"] == "step"):
        step["verify"]["argmax"].pop()
    assert diff_traces(EAGER, store(lines, tmp_path / "b.jsonl")).exit_code == 1


@pytest.mark.parametrize("left_out", ["top_tokens", "top_logits"])
def test_half_of_the_prefills_best_is_skipped_and_no_violation(tmp_path: Path, left_out: str) -> None:
    lines = load(FUSED)
    del lines[1]["prefill"][left_out]
    tally = check_trace(store(lines, tmp_path / "b.jsonl")).invariants["turn.prefill"]
    assert (tally.failed, tally.skipped, tally.why_skipped) == (0, 1, f"not recorded: prefill.{left_out}")
