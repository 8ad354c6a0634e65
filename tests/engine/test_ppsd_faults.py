"""Deliberate faults of the pipeline: each is found, by the oracle or by comparison, and honest runs are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pipeline_runs import record_alone, record_pipeline
from support.traces import load

from specscope.engine.lab.faults.pipeline import PIPELINE_FAULTS, find_pipeline_fault
from specscope.engine.settings import GREEDY, SamplingRule
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.check import check_trace

DRAWN = SamplingRule("sampling", temperature=0.9, top_k=20)


@pytest.mark.parametrize("rule", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_an_honest_run_is_silent(teacher_folder: Path, tmp_path: Path, rule: SamplingRule) -> None:
    alone = record_alone(teacher_folder, tmp_path / "alone.jsonl", rule)
    pipelined = record_pipeline(alone, teacher_folder, rule)
    report = check_trace(pipelined)
    assert report.num_violations == 0
    assert report.invariants["pipeline.cuts"].passed
    steps = [line["pipeline"] for line in load(pipelined) if line["kind"] == "step"]
    assert {True, False} <= {step.get("accepted") for step in steps}, "a run in which faults can show"
    verdict = diff_traces(alone, pipelined)
    assert not verdict.roots
    assert verdict.exit_code == 0


@pytest.mark.parametrize("name", [name for name, fault in PIPELINE_FAULTS.items() if fault.shows != "pipelines"])
def test_a_fault_is_found(teacher_folder: Path, tmp_path: Path, name: str) -> None:
    fault = find_pipeline_fault(name)
    rule = DRAWN if fault.drawn else GREEDY
    alone = record_alone(teacher_folder, tmp_path / "alone.jsonl", rule)
    pipelined = record_pipeline(alone, teacher_folder, rule, fault)
    violated = {name for name, tally in check_trace(pipelined).invariants.items() if tally.failed}
    if fault.shows == "oracle":
        assert fault.invariant in violated
        return
    verdict = diff_traces(alone, pipelined)
    assert verdict.roots
    assert verdict.roots[0].difference.phase == "verify"


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(UsageError, match="got fault 'F01', wanted one of those of the pipeline: P01"):
        find_pipeline_fault("F01")
