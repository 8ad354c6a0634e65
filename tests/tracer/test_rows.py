"""A row that one turn takes after another is judged by what is recorded of it, and not where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.reports import violated
from support.row_mutants import draw_on, keep, make_held, of_kind, reuse_others, take_before_it_is_left
from support.toy_run import Toy, toy_lines
from support.traces import FUSED, Lines, load, store

from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport


def renumber(lines: Lines) -> None:
    """Gives the records their numbers again, after some were moved or removed."""
    for seq, line in enumerate(lines):
        line["seq"] = seq


def move_behind(lines: Lines, line: dict[str, Any], other: dict[str, Any]) -> None:
    """Puts ``line`` after ``other``, and the end of turn 0 before both."""
    (end,) = [end for end in of_kind(lines, "turn_end") if end["turn"] == 0]
    for moved in (end, line):
        lines.remove(moved)
    at = lines.index(other)
    lines[at : at + 1] = [end, other, line]
    renumber(lines)


ROWS = ("rows.free-when-taken", "rows.nothing-kept", "rows.draws-anew")


def judged(lines: Lines, folder: Path) -> OracleReport:
    return check_trace(store(lines, folder / "rows.jsonl"))


def test_honest_turns_find_their_rows_empty(tmp_path: Path) -> None:
    report = judged(make_held(load(FUSED)), tmp_path)
    assert not violated(report)
    assert [report.invariants[name].passed for name in ROWS] == [report.num_turns, report.num_turns, 0]


def test_what_was_not_recorded_of_a_row_is_skipped(tmp_path: Path) -> None:
    """Two turns run at once, and a writer that knows of no rows says no row of either: they may be two."""
    lines = load(FUSED)
    take_before_it_is_left(lines)
    for start in of_kind(lines, "turn_start"):
        del start["held"]
    report = judged(lines, tmp_path)
    for name in ("rows.free-when-taken", "rows.nothing-kept"):
        tally = report.invariants[name]
        assert (tally.passed, tally.failed, tally.why_skipped) == (0, 0, "not recorded: held")


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (take_before_it_is_left, "rows.free-when-taken", "row 0 is taken by turn 1, and turn 0 has not left it"),
        (keep("committed_length"), "rows.nothing-kept", "row 0 holds 3 positions, and turn 1 reuses 0"),
        (keep("num_pairs"), "rows.nothing-kept", "row 0 holds 3 pairs of the drafter, and turn 1 reuses 0"),
        (reuse_others, "rows.nothing-kept", "row 0: reused token 0: got "),
        (draw_on, "rows.draws-anew", "turn 1 goes on drawing where turn 0 left off"),
    ],
)
def test_what_a_row_keeps_is_named(tmp_path: Path, change: Callable[[Lines], None], rule: str, words: str) -> None:
    lines = load(FUSED)
    change(lines)
    first = judged(lines, tmp_path).invariants[rule].first
    assert first is not None
    assert (first.turn, first.step) == (1, None)
    assert first.witness.startswith(words)


def test_a_turn_may_reuse_what_the_turn_before_it_left(tmp_path: Path) -> None:
    lines = load(FUSED)
    reuse_others(lines)
    first, second = of_kind(lines, "turn_start")[:2]
    end = of_kind(lines, "turn_end")[0]
    second["prompt_ids"] = [*first["prompt_ids"], *end["output_ids"], *second["prompt_ids"]]
    violation = judged(lines, tmp_path).invariants["rows.nothing-kept"].first
    assert violation is None or violation.turn == 2, "the third turn's context goes on from the second's as it was"


def test_a_turn_that_was_moved_frees_the_row_that_it_had(tmp_path: Path) -> None:
    """Of two rows the first ends; the second takes its number, so that the next turn begins in row 1."""
    lines = make_held(toy_lines(Toy(batch_size=2, num_turns=3)))
    (start,) = [start for start in of_kind(lines, "turn_start") if start["turn"] == 2]
    last = [step for step in of_kind(lines, "step") if step["turn"] == 1][-1]
    move_behind(lines, start, last)
    start["row"] = 1
    assert violated(judged(lines, tmp_path)) == {"rows.free-when-taken"}
    last["row"] = 0
    assert not violated(judged(lines, tmp_path))


def test_a_generator_of_equal_state_that_was_never_left_may_be_another(tmp_path: Path) -> None:
    lines = load(FUSED)
    draw_on(lines)
    for start in of_kind(lines, "turn_start"):
        start["generator_digest"] = "0123456789abcdef"  # all begin by one seed
    assert not judged(lines, tmp_path).invariants["rows.draws-anew"].failed


def test_a_diff_blames_who_kept_something(tmp_path: Path) -> None:
    broken = load(FUSED)
    keep("num_pairs")(broken)
    verdict = diff_traces(FUSED, store(broken, tmp_path / "broken.jsonl"))
    assert verdict.verdict == "different"
    assert [(blame.side, blame.invariant) for blame in verdict.violations] == [("b", "rows.nothing-kept")]


@pytest.mark.parametrize(("both", "kind", "line"), [(False, "equal", 1), (True, "equal", 1)])
def test_a_cancelled_turn_is_compared_as_far_as_it_went(tmp_path: Path, both: bool, kind: str, line: int) -> None:
    whole, cut = load(FUSED), load(FUSED)
    cancel(cut, drop=2)
    if both:
        cancel(whole, drop=1)
    verdict = diff_traces(store(whole, tmp_path / "whole.jsonl"), store(cut, tmp_path / "cut.jsonl"))
    assert (verdict.verdict, verdict.uncovered, len(verdict.unjudged)) == (kind, [], line)
    where = "the baseline and in the candidate" if both else "the candidate"
    assert f"cancelled in {where}; the outputs are equal as far as both were recorded" in verdict.unjudged[0]


def totals_of(steps: Lines) -> dict[str, Any]:
    """What a turn of these steps comes to."""
    lengths = [step["accept"]["accepted_length"] for step in steps]
    return {
        "num_steps": len(steps),
        "num_drafted": sum(len(step["tree"]["tokens"]) - 1 for step in steps),
        "num_accepted": sum(lengths),
        "accepted_by_depth": [sum(n > depth for n in lengths) for depth in range(max(lengths, default=0))],
    }


def cancel(lines: Lines, drop: int) -> None:
    """The last turn is cancelled ``drop`` steps before its end."""
    end = of_kind(lines, "turn_end")[-1]
    steps = [step for step in of_kind(lines, "step") if step["turn"] == end["turn"]]
    for step in steps[-drop:]:
        lines.remove(step)
    lines[-1]["counts"]["step"] -= drop
    kept = steps[:-drop]
    tokens = [token for step in kept for token in step["stop"]["emitted"][: step["stop"]["kept"]]]
    end |= {"reason": "cancelled", "output_ids": [*end["output_ids"][:1], *tokens], **totals_of(kept)}
    renumber(lines)
