"""The committed prefix is what was left: of every layer, and in older traces of the layer whose turn it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.traces import load, store

from specscope.tracer.oracle.check import check_trace

FROZEN = Path(__file__).parents[1] / "schemas" / "traces"


def commit_of(lines: list[dict[str, Any]], number: int) -> dict[str, Any]:
    commit: dict[str, Any] = next(x for x in lines if x["kind"] == "step" and x["step"] == number)["commit"]
    return commit


def witness_of(lines: list[dict[str, Any]], path: Path) -> str:
    return str(check_trace(store(lines, path)).invariants["commit.prefix-kept"].first)


def test_of_a_trace_of_format_1_3_the_layer_whose_turn_it_was_is_judged(tmp_path: Path) -> None:
    lines = load(FROZEN / "trace-1.3.jsonl")
    commit = commit_of(lines, 1)
    commit["prefix_since"] = "0123456789abcdef"
    assert f"prefix of layer {commit['prefix_layer']} is not as it was left" in witness_of(lines, tmp_path / "b.jsonl")


def test_the_layers_that_did_not_stay_as_they_were_are_named(tmp_path: Path) -> None:
    lines = load(FROZEN / "trace-1.4.jsonl")
    digests = commit_of(lines, 0)["kv_digests_before"]
    digests[2], digests[5] = digests[5], digests[2]
    assert "layers 2, 5 is not as it was left" in witness_of(lines, tmp_path / "exchanged.jsonl")


def test_a_step_that_left_no_digests_leaves_nothing_to_judge_the_next_one_by(tmp_path: Path) -> None:
    lines = load(FROZEN / "trace-1.4.jsonl")
    commit_of(lines, 1)["kv_digests_before"][0] = "0123456789abcdef"
    del commit_of(lines, 0)["kv_digests_after"]
    tally = check_trace(store(lines, tmp_path / "absent.jsonl")).invariants["commit.prefix-kept"]
    assert (tally.failed, tally.skipped) == (0, 1)
