"""Runs that were cut off, failed or interrupted: what both recorded is compared, and the rest is said not to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.traces import EAGER, FUSED, Lines, load, store

from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.card import headline
from specscope.tracer.report.values import same_texts


def cut(num_steps: int) -> Lines:
    """The first lines of a run, to the step of that number."""
    lines = load(FUSED)
    steps = [at for at, line in enumerate(lines) if line["kind"] == "step"]
    return lines[: steps[num_steps]]


def emitted_in(lines: Lines) -> list[int]:
    """The output of turn 1 as it stands so far."""
    start = next(line for line in lines if line["kind"] == "turn_start" and line["turn"] == 1)
    steps = (line for line in lines if line["kind"] == "step" and line["turn"] == 1)
    return [start["prefill"]["pending_token"], *(token for step in steps for token in step["stop"]["emitted"])]


def end_of(lines: Lines, reason: str) -> dict[str, object]:
    """The end of turn 1 as it stands so far."""
    steps = [line for line in lines if line["kind"] == "step" and line["turn"] == 1]
    lengths = [step["accept"]["accepted_length"] for step in steps]
    return {
        "seq": lines[-1]["seq"] + 1,
        "kind": "turn_end",
        "turn": 1,
        "output_ids": emitted_in(lines),
        "reason": reason,
        "num_steps": len(steps),
        "num_drafted": sum(len(step["tree"]["tokens"]) - 1 for step in steps),
        "num_accepted": sum(lengths),
        "accepted_by_depth": [sum(length > depth for length in lengths) for depth in range(max(lengths))],
        "duration_ns": 1,
    }


def title_of(verdict: Verdict) -> str:
    return headline(verdict, same_texts(TokenTexts(None)))


@pytest.mark.parametrize("ends_by", ["nothing", "interrupted", "failed"])
@pytest.mark.parametrize("candidate_first", [False, True])
def test_a_turn_that_was_cut_short_has_no_other_output(tmp_path: Path, ends_by: str, candidate_first: bool) -> None:
    lines = cut(12)
    if ends_by != "nothing":
        lines.append(end_of(lines, ends_by))
    paths = [EAGER, store(lines, tmp_path / "cut.jsonl")]
    verdict = diff_traces(*(reversed(paths) if candidate_first else paths))
    assert (verdict.verdict, verdict.exit_code) == ("uncovered", 4)
    says_where_it_ends(verdict, *(("baseline", "candidate") if candidate_first else ("candidate", "baseline")))
    counts_what_both_recorded(verdict)


def counts_what_both_recorded(verdict: Verdict) -> None:
    """The rest lies beyond the other run's end."""
    assert verdict.impact.tokens_equal
    assert verdict.impact.num_tokens_a == verdict.impact.num_tokens_b
    assert {verdict.impact.num_beyond_a, verdict.impact.num_beyond_b} > {0}
    assert (verdict.num_steps, verdict.num_regrouped) == (12, 0)


def says_where_it_ends(verdict: Verdict, side: str, other: str) -> None:
    """Of ``side``, which ends early: what both recorded is equal, and the rest is only in the ``other``."""
    assert not any("the outputs differ" in line for line in verdict.uncovered)
    (equal,) = (line for line in verdict.uncovered if "equal as far as both were recorded" in line)
    assert equal.startswith("turn 1 (prompt class): ")
    assert equal.endswith(f"; the {side} ends there")
    assert f"only in the {other}: turn 2 (prompt class)" in verdict.uncovered
    wanted = f"NOT JUDGED: equal in all 12 pairs of steps compared, but the {side} is truncated: it has no run_end"
    assert title_of(verdict) == wanted


def ended(num_steps: int, reason: str, path: Path) -> Path:
    """A run that says that it is complete, whose last turn ended after its first ``num_steps`` of 12 steps."""
    lines = cut(num_steps)
    lines.append(end_of(lines, reason))
    kinds = [line["kind"] for line in lines]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return store([*lines, {"seq": len(lines), "kind": "run_end", "reason": "complete", "counts": counts}], path)


@pytest.mark.parametrize("reasons", [("failed", "failed"), ("failed", "interrupted"), ("interrupted", "interrupted")])
@pytest.mark.parametrize("steps", [(12, 12), (14, 12)])
def test_turns_that_both_were_cut_short_are_equal_only_where_somebody_ended_both_alike(
    tmp_path: Path, reasons: tuple[str, str], steps: tuple[int, int]
) -> None:
    a, b = (
        ended(num, reason, tmp_path / f"{side}.jsonl") for num, reason, side in zip(steps, reasons, "ab", strict=True)
    )
    verdict = diff_traces(a, b)
    alike = reasons == ("interrupted", "interrupted") and steps == (12, 12)
    assert verdict.exit_code == (0 if alike else 4)
    assert any("neither came to its end" in line for line in verdict.uncovered) != alike


def test_a_token_that_differs_before_the_cut_is_found(tmp_path: Path) -> None:
    lines = cut(12)
    last = lines[-1]
    last["stop"]["emitted"][-1] += 1
    verdict = diff_traces(EAGER, store(lines, tmp_path / "cut.jsonl"))
    assert verdict.exit_code == 1
    assert not verdict.impact.tokens_equal


def test_an_end_that_its_rules_gave_is_not_excused_by_the_others_cut(tmp_path: Path) -> None:
    """The cut run is the longer one: what it emitted beyond the other's end differs."""
    whole = load(EAGER)
    end = next(line for line in whole if line["kind"] == "turn_end" and line["turn"] == 1)
    end["output_ids"] = end["output_ids"][:3]
    verdict = diff_traces(store(whole, tmp_path / "a.jsonl"), store(cut(20), tmp_path / "b.jsonl"))
    assert verdict.exit_code == 1
    assert not verdict.impact.tokens_equal


def failed(message: str, error: str, state: dict[str, object] | None) -> Lines:
    lines = cut(12)
    where = {"turn": 1, "step": 2, "phase": "check", "inputs": {}}
    seq = lines[-1]["seq"] + 1
    failure = {"seq": seq, "kind": "failure", **where, "error": error, "message": message}
    return [*lines, {**failure, "state": state} if state else failure]


def test_a_failed_run_says_first_where_it_stopped_and_why(tmp_path: Path) -> None:
    violated = "tensors.position-is-length-plus-depth: slot 2: position 31, wanted 30"
    state = {"context_ids": [1], "num_emitted": 0}
    path = store(failed(f"row 0: {violated}", "ViolationError", state), tmp_path / "failed.jsonl")
    verdict = diff_traces(EAGER, path)
    assert verdict.uncovered[0] == f"the candidate stopped in turn 1, step 2, in phase check: it violates {violated}"
    assert "but the candidate stopped in turn 1, step 2" in title_of(verdict)
    assert verdict.next == [f"specscope repro {path}"]
    other = diff_traces(EAGER, store(failed("out of memory", "RuntimeError", None), tmp_path / "other.jsonl"))
    assert other.uncovered[0].endswith("in phase check: RuntimeError: out of memory")
    assert other.next == []


def test_turns_without_a_partner_are_one_line(tmp_path: Path) -> None:
    lines = load(EAGER)
    begun, ended = ([line for line in lines if line["kind"] == kind] for kind in ("turn_start", "turn_end"))
    more = []
    for number in range(3, 8):
        more += [{**begun[0], "turn": number, "prompt_id": f"p{number}"}, {**ended[0], "turn": number, "num_steps": 0}]
    verdict = diff_traces(store([*lines[:-1], *more, lines[-1]], tmp_path / "more.jsonl"), FUSED)
    (line,) = (line for line in verdict.uncovered if line.startswith("only in"))
    names = "turn 3 (prompt p3), turn 4 (prompt p4), turn 5 (prompt p5)"
    assert line == f"only in the baseline: 5 turns: {names}, and 2 more"
