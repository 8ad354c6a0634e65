"""``export --format aiperf``: a record a turn, whose counts agree as AIPerf requires, and ``convert`` reads it back."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.traces import EAGER, FUSED, Lines, load, store

from specscope.tracer.files.reader import TraceReader


def exported(trace: Path, out: Path) -> list[dict[str, Any]]:
    done = specscope("export", trace, "--format", "aiperf", "-o", out)
    assert done.code == 0, done.err
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def drafting_lengths(trace: Path) -> list[list[tuple[int | None, int | None]]]:
    """Per turn, of steps that drafted, how much and how much was accepted."""
    with TraceReader(trace) as reader:
        turns = [list(reader.steps(entry)) for entry in reader.turns]
    return [[(s.num_drafted, s.accepted_length) for s in steps if s.num_drafted] for steps in turns]


@pytest.mark.parametrize("trace", [EAGER, FUSED], ids=["eager", "fused"])
def test_a_record_a_turn_whose_counts_agree_with_one_another(trace: Path, tmp_path: Path) -> None:
    records = exported(trace, tmp_path / "out.jsonl")
    ends = [line for line in load(trace) if line["kind"] == "turn_end"]
    assert len(records) == len(ends)
    for record, end, lengths in zip(records, ends, drafting_lengths(trace), strict=True):
        acceptance = record["spec_decode_acceptance"]
        histogram = {int(length): steps for length, steps in acceptance["acceptance_histogram"].items()}
        assert list(zip(acceptance["per_step_drafted"], acceptance["per_step_accepted"], strict=True)) == lengths
        # What AIPerf itself refuses a record for.
        assert sum(histogram.values()) == acceptance["num_spec_steps"]
        assert sum(length * steps for length, steps in histogram.items()) == acceptance["num_accepted_draft_tokens"]
        assert acceptance["num_accepted_draft_tokens"] <= acceptance["num_draft_tokens"] == end["num_drafted"]
        assert acceptance["mean_acceptance_length"] == 1 + end["num_accepted"] / end["num_steps"]
        assert acceptance["completion_tokens"] == len(end["output_ids"])
        assert record["metrics"]["output_sequence_length"]["value"] == len(end["output_ids"])
        assert record["metrics"]["request_latency"] == {"value": end["duration_ns"] / 1e6, "unit": "ms"}


def test_turns_follow_one_another_from_the_beginning_of_the_run(tmp_path: Path) -> None:
    records = exported(FUSED, tmp_path / "out.jsonl")
    times = [(r["metadata"]["request_start_ns"], r["metadata"]["request_end_ns"]) for r in records]
    created = datetime.fromisoformat(load(FUSED)[0]["created"])
    assert times[0][0] == int(created.timestamp()) * 10**9
    assert all(begun < ended for begun, ended in times)
    assert [begun for begun, _ in times[1:]] == [ended for _, ended in times[:-1]]


def test_it_is_read_back_as_lengths(tmp_path: Path) -> None:
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    exported(FUSED, out)
    done = specscope("convert", "aiperf", out, "-o", again)
    assert done.code == 0, done.err
    assert specscope("check", again).code == 0
    with TraceReader(again) as reader, TraceReader(FUSED) as before:
        assert reader.manifest.engine == before.manifest.engine
        lengths = [[step.lengths for step in reader.steps(entry)] for entry in reader.turns]
        ends = [reader.turn_end(entry) for entry in reader.turns]
        counted = [before.turn_end(entry) for entry in before.turns]
        names = [(entry.prompt_id, entry.prompt_turn) for entry in before.turns]
        assert [entry.prompt_id for entry in reader.turns] == [n if t == 0 else f"{n}-turn-{t}" for n, t in names]
        assert [reader.turn_start(entry).prompt_length for entry in reader.turns] == [
            before.turn_start(entry).prompt_length for entry in before.turns
        ]
    pairs = [[(step.drafted, step.accepted) for step in turn if step is not None] for turn in lengths]
    assert pairs == drafting_lengths(FUSED)
    for end, other in zip(ends, counted, strict=True):
        assert end is not None
        assert other is not None
        assert (end.output_length, end.num_drafted, end.num_accepted, end.accepted_by_depth, end.duration_ns) == (
            *(other.output_length, other.num_drafted, other.num_accepted, other.accepted_by_depth),
            other.duration_ns,
        )


def test_lengths_of_another_engine_come_back_as_they_were(tmp_path: Path) -> None:
    dump = Path(__file__).parents[1] / "adapters" / "dumps" / "aiperf-profile-export.jsonl"
    trace = tmp_path / "trace.jsonl"
    assert specscope("convert", "aiperf", dump, "-o", trace).code == 0
    records = exported(trace, tmp_path / "out.jsonl")
    wanted = [json.loads(line)["spec_decode_acceptance"] for line in dump.read_text().splitlines()[:2]]
    assert [record["spec_decode_acceptance"] for record in records] == wanted


def without_end(lines: Lines) -> None:
    lines[:] = [line for line in lines if line["kind"] != "turn_end"]


def of_the_teacher_alone(lines: Lines) -> None:
    for line in lines:
        if line["kind"] == "step":
            line["tree"] = {"tokens": line["tree"]["tokens"][:1], "parents": [0], "depths": [0]}


def undated(lines: Lines) -> None:
    lines[0]["created"] = "yesterday"


def end_by(lines: Lines, reason: str) -> None:
    for line in lines:
        if line["kind"] == "turn_end":
            line["reason"] = reason


def altered(lines: Lines, path: Path) -> list[dict[str, Any]]:
    return exported(store(lines, path / "altered.jsonl"), path / "out.jsonl")


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    lines = load(FUSED)
    without_end(lines)
    refused = specscope("export", store(lines, tmp_path / "t.jsonl"), "--format", "aiperf", "-o", tmp_path / "no")
    assert (refused.code, "no turn that came to an end" in refused.err) == (2, True)
    lines = load(FUSED)
    of_the_teacher_alone(lines)
    assert not any("spec_decode_acceptance" in record for record in altered(lines, tmp_path))


@pytest.mark.parametrize(
    ("reason", "was_cancelled"), [("cancelled", True), ("interrupted", True), ("failed", False), ("length", False)]
)
def test_turns_that_nobody_waited_for_were_cancelled(tmp_path: Path, reason: str, was_cancelled: bool) -> None:
    lines = load(FUSED)
    end_by(lines, reason)
    records = altered(lines, tmp_path)
    assert {record["metadata"]["was_cancelled"] for record in records} == {was_cancelled}


def test_a_run_without_a_date_begins_at_0(tmp_path: Path) -> None:
    lines = load(FUSED)
    undated(lines)
    records = altered(lines, tmp_path)
    assert records[0]["metadata"]["request_start_ns"] == 0
