"""Whole runs of tiny models: traced, checked and diffed; tracing changes nothing; faults are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_models import POLICY

from specscope.engine import decode
from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.load.models import load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, TurnReport, Workings, open_trace, run_turns
from specscope.engine.settings import ModelChoice, Settings
from specscope.engine.tree.policy import TreePolicy
from specscope.engine.tree.tensors import additive_mask
from specscope.schemas import Failure, Step
from specscope.schemas.manifest import Mode, TraceLevel
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import EngineError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

PROMPTS = [Prompt("short", ids=(5, 9, 2)), Prompt("long", ids=tuple(range(3, 40)))]


class Runner:
    """Decodes with the tiny models of this test session."""

    def __init__(self, teacher: Path, head: Path, folder: Path) -> None:
        self.teacher, self.head, self.folder = teacher, head, folder

    def __call__(
        self,
        name: str | None,
        mode: Mode = "fused",
        fault: str | None = None,
        level: TraceLevel = "decisions",
        policy: TreePolicy = POLICY,
        tokens: int = 20,
    ) -> list[TurnReport]:
        drafter = f"eagle3:{self.head}"
        choice = ModelChoice(
            teacher=str(self.teacher), drafter=drafter, mode=mode, dtype="float32", device="cpu", policy=policy
        )
        target = TraceTarget(self.folder / f"{name}.jsonl", level) if name else None
        injected = find_fault(fault) if fault is not None else None
        request = RunRequest(Settings(choice=choice, max_new_tokens=tokens, fault=fault), PROMPTS, target)
        models = load_models(choice)
        writer = open_trace(request, models, warn=print)
        return list(run_turns(request, models, writer, change=injecting(injected)))


@pytest.fixture
def run(teacher_folder: Path, head_folder: Path, tmp_path: Path) -> Runner:
    return Runner(teacher_folder, head_folder, tmp_path)


def outputs(reports: list[TurnReport]) -> list[list[int]]:
    return [report.result.output_ids for report in reports]


@pytest.mark.parametrize("mode", ["fused", "eager"])
@pytest.mark.parametrize("level", ["decisions", "scores", "tensors"])
def test_tracing_changes_no_token_and_the_trace_passes(run: Runner, mode: Mode, level: TraceLevel) -> None:
    plain = run(None, mode)
    traced = run("traced", mode, level=level)
    assert outputs(traced) == outputs(plain)
    assert [r.result.accepted_lengths for r in traced] == [r.result.accepted_lengths for r in plain]
    report = check_trace(run.folder / "traced.jsonl")
    assert (report.num_violations, report.truncated, report.num_turns) == (0, False, 2)
    assert not any(tally.skipped for tally in report.invariants.values())


def test_the_turns_record_what_the_run_returned(run: Runner) -> None:
    reports = run("run")
    with TraceReader(run.folder / "run.jsonl") as reader:
        for entry, report in zip(reader.turns, reports, strict=True):
            end = reader.turn_end(entry)
            assert end is not None
            assert end.output_ids == report.result.output_ids
            assert end.num_accepted == sum(report.result.accepted_lengths)
            assert entry.accepted_lengths == report.result.accepted_lengths


@pytest.mark.parametrize("mode", ["fused", "eager"])
def test_what_was_dispatched_is_recorded(run: Runner, mode: Mode) -> None:
    run("run", mode)
    with TraceReader(run.folder / "run.jsonl") as reader:
        for entry in reader.turns:
            for step in reader.steps(entry):
                assert step.verify is not None
                assert step.verify.dispatch is not None
                assert sum(step.verify.dispatch.values()) == 8
                assert {name == "eager" for name in step.verify.dispatch} == {mode == "eager"}


def test_the_same_run_twice_and_both_modes_are_equal(run: Runner) -> None:
    modes: dict[str, Mode] = {"a": "fused", "b": "fused", "eager": "eager", "baseline": "baseline"}
    for name, mode in modes.items():
        run(name, mode)
    paths = {name: run.folder / f"{name}.jsonl" for name in ("a", "b", "eager", "baseline")}
    same = diff_traces(paths["a"], paths["b"])
    assert (same.verdict, same.drift) == ("equal", [])
    for other in ("eager", "baseline"):
        verdict = diff_traces(paths[other], paths["a"])
        assert (verdict.verdict, verdict.exit_code, verdict.impact.tokens_equal) == ("equal", 0, True), verdict.roots


def test_other_step_groupings_of_equal_tokens_are_aligned_by_position(run: Runner) -> None:
    run("wide", policy=TreePolicy(kind="dynamic", depth=4, top_k=3, budget=9))
    run("narrow", policy=TreePolicy(kind="dynamic", depth=1, top_k=1, budget=1))
    options = DiffOptions(allowed=frozenset(["tree_policy"]))
    verdict = diff_traces(run.folder / "wide.jsonl", run.folder / "narrow.jsonl", options)
    assert verdict.impact.tokens_equal
    assert verdict.num_steps > 10
    assert diff_traces(run.folder / "wide.jsonl", run.folder / "narrow.jsonl").exit_code == 3


@pytest.mark.parametrize(("fault", "field"), [("F15.sibling", "mask"), ("F16", "positions")])
def test_an_injected_fault_is_the_first_root_and_blamed(run: Runner, fault: str, field: str) -> None:
    run("eager", "eager")
    run("broken", fault=fault)
    verdict = diff_traces(run.folder / "eager.jsonl", run.folder / "broken.jsonl")
    assert verdict.exit_code == 1
    first = verdict.roots[0]
    assert (first.difference.phase, first.difference.field) == ("tensors", field)
    assert {blame.side for blame in first.blame} == {"b"}
    assert f"fault: absent -> {fault}" in verdict.axis


def test_level_tensors_stores_the_logits_that_were_digested(run: Runner) -> None:
    run("deep", level="tensors")
    with TraceReader(run.folder / "deep.jsonl") as reader:
        step = reader.step(reader.turns[0], 1)
    assert step.tensor_files is not None
    assert step.verify is not None
    stored = load_file(run.folder / step.tensor_files.file)
    assert set(stored) == set(step.tensor_files.names)
    assert stored["logits"].argmax(-1).tolist() == step.verify.argmax
    top = stored["logits"].topk(2).values
    assert torch.allclose(top, torch.tensor(step.verify.top_logits), atol=1e-6)


def test_recorded_floats_restore_each_float32(run: Runner) -> None:
    run("deep", level="tensors")
    with TraceReader(run.folder / "deep.jsonl") as reader:
        step = reader.step(reader.turns[0], 0)
    assert step.tensor_files is not None
    assert step.verify is not None
    stored = load_file(run.folder / step.tensor_files.file)["logits"].topk(2).values
    assert torch.equal(torch.tensor(step.verify.top_logits, dtype=torch.float32), stored)


def test_level_scores_adds_the_teachers_best(run: Runner) -> None:
    run("scores", level="scores")
    with TraceReader(run.folder / "scores.jsonl") as reader:
        step = reader.step(reader.turns[0], 0)
    assert isinstance(step, Step)
    assert step.verify is not None
    assert step.verify.target_tokens is not None
    assert [row[0] for row in step.verify.target_tokens] == step.verify.argmax


def test_a_failing_step_is_recorded_with_its_inputs(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def breaks(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("the kernel gave up")
        return additive_mask(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("specscope.engine.loop.phases.additive_mask", breaks)
    with pytest.raises(Exception, match="the kernel gave up"):
        run("failed")
    report = check_trace(run.folder / "failed.jsonl")
    assert report.end_reason == "failed"
    (failure,) = report.failures
    assert isinstance(failure, Failure)
    assert (failure.turn, failure.step, failure.phase, failure.error) == (0, 2, "verify", "RuntimeError")
    assert {"draft", "tree", "tensors"} <= failure.inputs.keys()
    assert failure.inputs["tree"]["tokens"]


def test_an_existing_side_folder_is_not_touched(run: Runner) -> None:
    (run.folder / "deep.tensors").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        run("deep", level="tensors")


def test_a_fault_in_the_settings_that_nothing_injects_is_refused(run: Runner, tmp_path: Path) -> None:
    choice = ModelChoice(teacher=str(run.teacher), drafter=f"eagle3:{run.head}", device="cpu", policy=POLICY)
    request = RunRequest(Settings(choice=choice, max_new_tokens=4, fault="F16"), PROMPTS)
    with pytest.raises(UsageError, match="nothing that injects it"):
        list(run_turns(request, load_models(choice), None))
    with pytest.raises(UsageError, match="decode injects none"):
        decode("a", fault="F16", trace=tmp_path / "never.jsonl")
    assert not (tmp_path / "never.jsonl").exists()


def test_a_failure_of_torch_that_is_known_comes_with_the_way_out(teacher_folder: Path, head_folder: Path) -> None:
    def refusing(workings: Workings) -> Workings:
        def refuse(*_: object, **__: object) -> NoReturn:
            raise RuntimeError("pack_vnni2 is only supported when avx512 is supported")

        return replace(workings, phases=replace(workings.phases, accept=refuse))

    choice = ModelChoice(teacher=str(teacher_folder), drafter=f"eagle3:{head_folder}", dtype="float32", device="cpu")
    request = RunRequest(Settings(choice=choice, max_new_tokens=4), PROMPTS, None)
    with pytest.raises(EngineError, match=r"pack_vnni2 .*: set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 as well"):
        list(run_turns(request, load_models(choice), None, change=refusing))
