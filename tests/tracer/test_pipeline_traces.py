"""Traces of pipelined runs: sound as they are recorded, and each of their rules fires when it is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.pipeline_mutants import PIPELINE_MUTANTS, PIPELINE_RUN, on_devices, one_after_another
from support.traces import FUSED, load, store

from specscope.tracer.files.mending import end_trace
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport


def violated(report: OracleReport) -> set[str]:
    return {name for name, tally in report.invariants.items() if tally.failed}


def test_a_recorded_run_is_sound_and_no_rule_of_pipelines_is_skipped(tmp_path: Path) -> None:
    lines = load(PIPELINE_RUN)
    on_devices(lines)
    report = check_trace(store(lines, tmp_path / "devices.jsonl"))
    assert not violated(report)
    for name in PIPELINE_MUTANTS:
        tally = report.invariants[name]
        assert (tally.passed > 0, tally.skipped) == (True, 0), name


@pytest.mark.parametrize(
    ("invariant", "number"),
    [(name, number) for name, all_of in PIPELINE_MUTANTS.items() for number in range(len(all_of))],
)
def test_a_broken_run_fires_its_invariant(tmp_path: Path, invariant: str, number: int) -> None:
    lines = load(PIPELINE_RUN)
    PIPELINE_MUTANTS[invariant][number](lines)
    report = check_trace(store(lines, tmp_path / "broken.jsonl"))
    assert invariant in violated(report)
    first = report.invariants[invariant].first
    assert first is not None
    assert first.witness


def test_stages_that_share_processors_may_take_turns(tmp_path: Path) -> None:
    lines = load(PIPELINE_RUN)
    one_after_another(lines)
    report = check_trace(store(lines, tmp_path / "in-turn.jsonl"))
    assert "pipeline.overlap" not in violated(report)
    tally = report.invariants["pipeline.overlap"]
    assert (tally.passed, tally.failed, tally.skipped) == (0, 0, 0)


@pytest.mark.parametrize(
    ("devices", "fires"),
    [(["xpu:0", "xpu:1", "xpu:2"], True), (["xpu:0", "xpu:1", "xpu:0"], False), (["cpu"] * 3, False)],
)
def test_whether_stages_may_take_turns_is_said_by_their_devices(
    tmp_path: Path, devices: list[str], *, fires: bool
) -> None:
    lines = load(PIPELINE_RUN)
    one_after_another(lines)
    for stage, device in zip(lines[0]["pipeline"]["stages"], devices, strict=True):
        stage["device"] = device
    report = check_trace(store(lines, tmp_path / "in-turn.jsonl"))
    assert ("pipeline.overlap" in violated(report)) == fires
    assert report.invariants["pipeline.overlap"].passed == 0


def test_rules_of_pipelines_say_nothing_of_other_runs() -> None:
    report = check_trace(FUSED)
    for name in PIPELINE_MUTANTS:
        tally = report.invariants[name]
        assert (tally.passed, tally.failed, tally.skipped) == (0, 0, 0), name


@pytest.mark.parametrize("lost_bytes", [0, 1, 500])
def test_a_trace_whose_writer_was_killed_is_ended(tmp_path: Path, lost_bytes: int) -> None:
    content = PIPELINE_RUN.read_bytes().splitlines(keepends=True)
    path = tmp_path / "cut.jsonl"
    whole = b"".join(content[:9])
    path.write_bytes(whole[: len(whole) - lost_bytes])
    assert end_trace(path, "a stage was killed")
    report = check_trace(path)
    assert (violated(report), report.truncated, report.end_reason) == (set(), False, "failed")
    assert [failure.message for failure in report.failures] == ["a stage was killed"]
    with TraceReader(path) as reader:
        assert reader.manifest.pipeline is not None
    assert path.read_bytes().startswith(b"".join(content[: 9 if not lost_bytes else 8]))


def test_a_trace_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "whole.jsonl"
    path.write_bytes(PIPELINE_RUN.read_bytes())
    assert not end_trace(path, "anything")
    assert path.read_bytes() == PIPELINE_RUN.read_bytes()
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert not end_trace(tmp_path / "empty.jsonl", "anything"), "without a manifest there is no trace to end"
    assert not end_trace(tmp_path / "none.jsonl", "anything")


def test_the_recorded_run_says_what_the_stages_are() -> None:
    manifest = json.loads(PIPELINE_RUN.read_text().splitlines()[0])
    stages = manifest["pipeline"]["stages"]
    assert [(s["first_layer"], s["last_layer"]) for s in stages] == [(0, 3), (4, 6), (7, 9)]
