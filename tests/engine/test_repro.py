"""A failed step is run again from its record alone: same error, same phase, same tree; and what stands in the way."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.called import specscope
from support.tiny_models import POLICY, build_head, build_teacher
from support.traces import ROOT

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.engine.lab.rerun.repro import reproduce
from specscope.engine.load.models import load_models
from specscope.engine.loop import phases, session
from specscope.engine.record.side_files import SideFiles
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import GREEDY, ModelChoice, ProcessorChoice, SamplingRule, Settings
from specscope.engine.teacher.model import Teacher
from specscope.engine.tree.policy import parse_policy
from specscope.engine.tree.tensors import TreeTensors
from specscope.schemas import Failure
from specscope.tracer.errors import EngineError, IncomparableError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

PROMPTS = [Prompt("short", ids=(5, 9, 2)), Prompt("long", ids=tuple(range(3, 40))), Prompt("one", ids=(44,))]
AS_IT_WAS = Overrides()


class Runs:
    """Decodes with tiny models into traces of one folder."""

    def __init__(self, teacher: Path, head: Path, folder: Path) -> None:
        self.teacher, self.head, self.folder = teacher, head, folder

    def __call__(self, drafter: str = "eagle3", **changes: Any) -> Path:
        """The trace of a run; what it raises is raised."""
        name = {"eagle3": f"eagle3:{self.head}", "model": f"model:{self.teacher}"}.get(drafter, drafter)
        mode, rule = changes.pop("mode", "fused"), changes.pop("rule", GREEDY)
        choice = ModelChoice(
            teacher=str(self.teacher),
            drafter=name,
            mode=mode,
            dtype="float32",
            device="cpu",
            policy=changes.pop("policy", POLICY),
            rule=rule,
        )
        path = self.folder / "run.jsonl"
        target = TraceTarget(path, changes.pop("level", "decisions"))
        prompts = changes.pop("prompts", PROMPTS)
        fault = find_fault(changes["fault"]) if "fault" in changes else None
        settings = Settings(choice=choice, max_new_tokens=24, seed=7, **changes)
        request = RunRequest(settings, prompts, target)
        models = load_models(choice)
        for _ in run_turns(request, models, open_trace(request, models, warn=print), change=injecting(fault)):
            pass
        return path

    def failing(self, drafter: str = "eagle3", **changes: Any) -> Path:
        """The trace of a run that must fail."""
        with pytest.raises(EngineError):
            self(drafter, **changes)
        return self.folder / "run.jsonl"


@pytest.fixture
def run(teacher_folder: Path, head_folder: Path, tmp_path: Path) -> Runs:
    return Runs(teacher_folder, head_folder, tmp_path)


def breaks_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, breaks: Callable[..., bool]) -> None:
    """Makes ``owner.name`` raise where ``breaks`` says so of its arguments."""
    whole = getattr(owner, name)

    def broken(*arguments: Any, **named: Any) -> Any:
        if breaks(*arguments):
            raise RuntimeError("the kernel gave up")
        return whole(*arguments, **named)

    monkeypatch.setattr(owner, name, broken)


def long_in_verify(tensors: TreeTensors, *_: Any) -> bool:
    return max(tensors.committed_lengths) > 8


def long_in_commit(cache: TreeCache, *_: Any) -> bool:
    return max(cache.committed_lengths) > 8


SINGLE: dict[str, Any] = {"prompts": PROMPTS[:1]}
STATIC = parse_policy("static:pair-6", depth=5, top_k=4, budget=16)


@pytest.mark.parametrize("drafter", ["eagle3", "ngram", "model", "none"])
def test_a_failed_verify_is_found_again(run: Runs, monkeypatch: pytest.MonkeyPatch, drafter: str) -> None:
    breaks_at(monkeypatch, phases, "additive_mask", long_in_verify)
    trace = run.failing(drafter, **SINGLE)
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.differing, again.tree_put_in) == ("reproduced", [], False)
    assert (again.recorded.phase, again.recorded.error, again.num_rows) == ("verify", "RuntimeError", 1)
    assert again.compared == ["tree", "tensors"]
    assert again.notes == []
    monkeypatch.undo()
    healed = reproduce(trace, AS_IT_WAS)
    assert (healed.outcome, healed.differing) == ("not reproduced", [])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "eager"},
        {"mode": "baseline", "policy": POLICY},
        {"rule": SamplingRule("sampling", temperature=0.8, top_k=30)},
        {"rule": SamplingRule("sampling", temperature=0.8, draft="sampled"), "policy": STATIC},
        {"rule": SamplingRule("typical", temperature=0.7)},
        {"processors": ProcessorChoice(1.3, 30, 3, [[9], [3, 3]])},
        {"cache_strategy": "replicate"},
    ],
    ids=["greedy", "eager", "baseline", "sampling", "drawn", "typical", "processors", "replicate"],
)  # fmt: skip
def test_a_failed_commit_is_found_again_behind_the_same_path(
    run: Runs, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    breaks_at(monkeypatch, TreeCache, "commit_paths", long_in_commit)
    trace = run.failing(prompts=PROMPTS[:2], **changes)
    for _ in range(2):
        again = reproduce(trace, AS_IT_WAS)
        assert (again.outcome, again.differing, again.tree_put_in) == ("reproduced", [], False)
        assert again.compared == ["tree", "tensors", "accept"]
    monkeypatch.undo()
    healed = reproduce(trace, AS_IT_WAS)
    assert (healed.outcome, healed.differing) == ("not reproduced", [])


def test_the_generators_state_counts(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks_at(monkeypatch, TreeCache, "commit_paths", long_in_commit)
    trace = run.failing(**SINGLE, rule=SamplingRule("sampling", temperature=1.5))
    fresh = torch.Generator().manual_seed(1).get_state()
    changed = rewritten(trace, "generator_state", encoded(fresh))
    assert reproduce(changed, AS_IT_WAS).differing, "other coins, another path"


def encoded(state: torch.Tensor) -> str:
    return b64encode(state.numpy().tobytes()).decode()


def rewritten(trace: Path, name: str, value: Any) -> Path:
    """A copy of the trace whose failure states say something else."""
    lines = []
    for line in trace.read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "failure":
            record["state"][name] = value
        lines.append(json.dumps(record))
    copy = trace.with_name("rewritten.jsonl")
    copy.write_text("\n".join(lines) + "\n")
    return copy


@pytest.mark.parametrize("drafter", ["eagle3", "ngram", "model"])
def test_rows_that_failed_together_are_rebuilt_together(
    run: Runs, monkeypatch: pytest.MonkeyPatch, drafter: str
) -> None:
    breaks_at(monkeypatch, TreeCache, "commit_paths", lambda cache, *_: min(cache.committed_lengths) > 3)
    trace = run.failing(drafter, batch_size=3, rule=SamplingRule("sampling", temperature=0.8))
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.differing, again.num_rows, again.num_recorded) == ("reproduced", [], 3, 3)
    for index in range(3):
        alone = reproduce(trace, AS_IT_WAS, index)
        assert (alone.outcome, alone.differing, alone.num_rows) == ("reproduced", [], 1)
        assert alone.recorded.row == (index or None)


def test_a_row_in_its_first_step_beside_others_in_later_ones(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PREFILL_ROWS", 5)

    def unlike(cache: TreeCache, *_: Any) -> bool:
        return min(cache.committed_lengths) == 2 and max(cache.committed_lengths) > 5

    breaks_at(monkeypatch, TreeCache, "commit_paths", unlike)
    prompts = [Prompt(str(n), ids=(n, n + 1)) for n in range(2, 20)]
    trace = run.failing(prompts=prompts, batch_size=2, rule=SamplingRule("sampling", temperature=2.0))
    with TraceReader(trace) as reader:
        steps = [failure.step for failure in reader.failures()]
    assert len(steps) == 2
    assert 0 in steps
    assert max(step for step in steps if step is not None) > 0
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.differing) == ("reproduced", [])


def test_a_failed_prefill_is_run_as_a_prefill(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks_at(monkeypatch, Teacher, "forward", lambda _, ids, *__: ids.shape[1] == len(PROMPTS[1].ids))
    trace = run.failing(batch_size=2)
    (failure,) = check_trace(trace).failures
    assert (failure.turn, failure.step, failure.row, failure.phase) == (1, None, 1, "prefill")
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.compared, again.num_rows) == ("reproduced", [], 1)
    monkeypatch.undo()
    assert reproduce(trace, AS_IT_WAS).outcome == "not reproduced"


def test_failures_in_drafting_and_recording(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks_at(monkeypatch, Eagle3Drafter, "_take_in", lambda drafter, _: drafter.num_pairs[0] > 7)
    trace = run.failing(**SINGLE)
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.recorded.phase, again.compared) == ("reproduced", "draft", [])
    monkeypatch.undo()
    trace.unlink()
    breaks_at(monkeypatch, SideFiles, "write", lambda _, __, result: result.step == 2)
    trace = run.failing(**SINGLE, level="tensors")
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.recorded.phase, again.differing) == ("reproduced", "record", [])


def test_another_failure_is_not_the_failure(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks_at(monkeypatch, phases, "additive_mask", long_in_verify)
    trace = run.failing(**SINGLE)
    monkeypatch.undo()
    breaks_at(monkeypatch, TreeCache, "commit_paths", long_in_commit)
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.differing) == ("another failure", [])
    assert again.failure is not None
    assert again.failure.phase == "commit"


def test_the_recorded_tree_is_put_in_where_the_drafter_finds_another(
    run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks_at(monkeypatch, TreeCache, "commit_paths", long_in_commit)
    trace = run.failing(**SINGLE)
    whole = Eagle3Drafter.propose

    def other(*arguments: Any) -> Any:
        draft = whole(*arguments)
        draft.tree.tokens[:, -1] += 1
        return draft

    monkeypatch.setattr(Eagle3Drafter, "propose", other)
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.tree_put_in, again.differing) == ("reproduced", True, [])


@pytest.mark.parametrize(("strict", "outcome"), [(True, "reproduced"), (False, None)])
def test_a_strict_run_with_a_fault_in_ends_at_its_violation(run: Runs, strict: bool, outcome: str | None) -> None:
    if outcome is None:
        with TraceReader(run(**SINGLE, fault="F16", strict=strict)) as reader:
            assert reader.failures() == []
        return
    trace = run.failing(**SINGLE, fault="F16", strict=strict)
    again = reproduce(trace, AS_IT_WAS)
    assert (again.outcome, again.recorded.error, again.recorded.phase) == (outcome, "ViolationError", "check")


def test_an_interrupt_is_no_failure(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TreeCache, "commit_paths", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(**SINGLE)
    trace = run.folder / "run.jsonl"
    report = check_trace(trace)
    assert (report.failures, report.end_reason) == ([], "interrupted")
    with pytest.raises(UsageError, match="records no failure"):
        reproduce(trace, AS_IT_WAS)


def test_what_is_not_the_runs_model_is_incomparable(run: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    breaks_at(monkeypatch, phases, "additive_mask", long_in_verify)
    trace = run.failing(**SINGLE)
    other_teacher, other_head = build_teacher(tmp_path / "qwen", "qwen3"), build_head(tmp_path / "other", 30)
    moved = build_teacher(tmp_path / "moved")
    with pytest.raises(IncomparableError, match="the teacher that was loaded is not the trace's: architecture"):
        reproduce(trace, Overrides(teacher=str(other_teacher)))
    with pytest.raises(IncomparableError, match="the drafter that was loaded is not the trace's: config_digest"):
        reproduce(trace, Overrides(drafter=f"eagle3:{other_head}"))
    assert reproduce(trace, Overrides(teacher=str(moved))).outcome == "reproduced"


def test_changed_records_are_refused(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks_at(monkeypatch, phases, "additive_mask", long_in_verify)
    trace = run.failing(**SINGLE, rule=SamplingRule("sampling"))
    with TraceReader(trace) as reader:
        state = reader.failures()[0].state
    assert state is not None
    changes: list[tuple[str, Any]] = [
        ("context_ids", []),
        ("context_ids", [61, 1, 2]),
        ("context_ids", state.context_ids[:1]),
        ("num_emitted", 0),
        ("num_emitted", len(state.context_ids)),
        ("source_rows", None),
        ("source_rows", list(range(99))),
    ]
    for name, value in changes:
        with pytest.raises(UsageError, match="does not fit itself or the teacher"):
            reproduce(rewritten(trace, name, value), AS_IT_WAS)
    for drawn in (None, "a", "AAAA"):
        with pytest.raises(UsageError, match="none of torch's"):
            reproduce(rewritten(trace, "generator_state", drawn), AS_IT_WAS)
    without = trace.with_name("without.jsonl")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    without.write_text("\n".join(json.dumps({k: v for k, v in line.items() if k != "state"}) for line in lines) + "\n")
    with pytest.raises(UsageError, match="of an older version or another engine"):
        reproduce(without, AS_IT_WAS)
    with pytest.raises(UsageError, match=r"got index 1, wanted 0\.\.0"):
        reproduce(trace, AS_IT_WAS, 1)


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("teacher", "source", None, "does not say what its teacher was loaded from: give --teacher"),
        ("drafter", "source", "magic", "got drafter 'magic'"),
        ("device", "backend", "tpu", "the trace's device is 'tpu'"),
        ("tree_policy", "choices", [[1], [2]], "static tree"),
        ("sampling", "processors", {"MinP": {"min_p": 0.1}}, "changed its logits by MinP"),
        ("sampling", "processors", {"repetition_penalty": "a"}, "transformers refuses"),
    ],
)
def test_a_manifest_that_cannot_be_run_is_refused(
    run: Runs, monkeypatch: pytest.MonkeyPatch, section: str, name: str, value: Any, message: str
) -> None:
    breaks_at(monkeypatch, phases, "additive_mask", long_in_verify)
    trace = run.failing(**SINGLE, policy=STATIC)
    lines = trace.read_text().splitlines()
    manifest = json.loads(lines[0])
    manifest[section][name] = value
    trace.write_text("\n".join([json.dumps(manifest), *lines[1:]]) + "\n")
    with pytest.raises(UsageError, match=message):
        reproduce(trace, AS_IT_WAS)


def test_the_record_says_where_the_turn_stood(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks_at(monkeypatch, phases, "additive_mask", long_in_verify)
    trace = run.failing(**SINGLE)
    with TraceReader(trace) as reader:
        (failure,) = reader.failures()
        last = list(reader.steps(reader.turns[0]))[-1]
        end = reader.turn_end(reader.turns[0])
    assert isinstance(failure, Failure)
    assert failure.state is not None
    assert last.stop is not None
    assert last.accept is not None
    assert last.commit is not None
    assert end is not None
    assert failure.step == last.step + 1
    assert failure.state.context_ids == [*PROMPTS[0].ids, *end.output_ids]
    assert failure.state.num_emitted == len(end.output_ids)
    assert failure.state.source_rows == [0, *last.accept.path]
    assert len(failure.state.context_ids) - 1 == last.commit.committed_after
    assert failure.state.generator_state is None


@pytest.mark.slow
def test_repro_as_a_process(tmp_path: Path) -> None:
    trace = tmp_path / "failed.jsonl"
    failed = specscope(
        "run", "--prompt", "import os\n", "--inject", "F16", "--strict", "--trace", trace, "--max-new-tokens", "8"
    )
    assert failed.code == 1
    assert "tensors.position-is-length-plus-depth" in failed.err
    done = specscope("repro", trace)
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("reproduced: ViolationError at check: row 0: tensors.position-is-length-plus-depth")
    assert "as recorded (tree, tensors)" in done.out
    other = specscope("repro", trace, "--drafter", "none")
    assert other.code == 3
    assert other.err == (
        "error: the drafter that was loaded is not the trace's: kind is none, was eagle3; "
        "name the one of the run with --drafter\n"
    )
    honest = specscope("repro", ROOT / "sample_traces" / "eager.jsonl")
    assert honest.code == 2
    assert "records no failure" in honest.err
    assert "Exits 1 where the same error came" in specscope("repro", "--help").out
