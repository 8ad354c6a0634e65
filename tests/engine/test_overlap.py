"""Results that are delivered while the next step is drafted: when, of which rows, and that nothing else is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.called import specscope
from support.recorded_runs import TinyRuns

from specscope.engine.load.decoding import decoding_of
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop.phases import StepResult
from specscope.engine.loop.session import Session
from specscope.engine.run.prompts import Prompt, Times
from specscope.engine.run.runner import RunRequest, TraceTarget, TurnEvents, open_trace, run_turns
from specscope.engine.settings import ModelChoice, SamplingRule, Settings
from specscope.engine.tree.policy import parse_policy
from specscope.schemas import Step, TurnEnd
from specscope.tracer.errors import EngineError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

FIRST = Prompt("first", ids=(5, 9, 2))
#: Rows join, are waited for, and leave by a cancel.
COMING = [
    FIRST,
    Prompt("second", ids=(44, 3, 3, 60), times=Times(1)),
    Prompt("cancelled", ids=tuple(range(3, 20)), times=Times(1, cancel_at=4)),
    Prompt("last", ids=(30, 31, 7), times=Times(30)),
]
DRAWN = SamplingRule("sampling", temperature=0.8, draft="sampled")


@pytest.fixture(scope="module")
def choice(teacher_folder: Path, head_folder: Path) -> ModelChoice:
    return TinyRuns(teacher_folder, head_folder, teacher_folder).choice()


@pytest.fixture(scope="module")
def models(choice: ModelChoice) -> Models:
    return load_models(choice)


class Listener:
    """Decodes, and notes what the caller is told, and when a draft was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, models: Models) -> None:
        self.models = models
        self.events: list[str] = []
        self.outputs: dict[str, list[list[int]]] = {}
        self.then: Callable[[], None] = lambda: None  # at the second step that is delivered
        self.third: Callable[[], None] = lambda: None  # as the third draft begins
        self.logits: list[torch.Tensor] = []  # of each step that is still to be delivered, as it ended
        self.monkeypatch = monkeypatch
        self.watch(models)
        taken = Session.step

        def step(session: Session, *given: Any) -> list[StepResult]:
            results = taken(session, *given)
            self.logits.append(results[0].shared.verification.logits.clone())
            return results

        monkeypatch.setattr(Session, "step", step)

    def watch(self, models: Models) -> None:
        """Decodes with these from now on."""
        self.models = models
        propose = models.drafter.propose

        def proposing(*given: Any) -> Any:
            self.events.append("draft")
            if self.events.count("draft") == 3:
                self.third()
            return propose(*given)

        self.monkeypatch.setattr(models.drafter, "propose", proposing)

    def stepped(self, results: list[StepResult]) -> None:
        self.events.append(f"step {results[0].step}")
        assert not torch.is_inference_mode_enabled(), "the caller's tensors are its own"
        assert torch.equal(results[0].shared.verification.logits, self.logits.pop(0))
        if self.events.count("step 1"):
            self.then()

    def tokens(self, prompt: Prompt, output_ids: list[int]) -> None:
        self.outputs.setdefault(prompt.id, []).append(list(output_ids))

    def run(
        self, choice: ModelChoice, prompts: list[Prompt], overlap: Any, trace: Path | None = None, **more: Any
    ) -> None:
        self.events.clear()
        self.logits.clear()
        self.outputs = {}
        target = None if trace is None else TraceTarget(trace)
        settings = Settings(choice=choice, max_new_tokens=12, overlap=overlap, **more)
        request = RunRequest(settings, prompts, target)
        events = TurnEvents(lambda *_: self.events.append("begins"), self.tokens, self.stepped)
        for report in run_turns(request, self.models, open_trace(request, self.models), events):
            self.events.append(f"{report.prompt_id} ends")


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch, models: Models) -> Listener:
    return Listener(monkeypatch, models)


def test_a_step_is_delivered_once_the_next_is_drafted(listener: Listener, choice: ModelChoice) -> None:
    listener.run(choice, [FIRST], "off")
    steps = listener.events.count("draft")
    assert steps > 2
    in_turn = [word for step in range(steps) for word in ("draft", f"step {step}")]
    assert listener.events == ["begins", *in_turn, "first ends"]
    listener.run(choice, [FIRST], "on")
    drafts_first = [word for step in range(1, steps - 1) for word in ("draft", f"step {step - 1}")]
    last = ["draft", f"step {steps - 2}", f"step {steps - 1}"]  # where a turn ends, nothing waits
    assert listener.events == ["begins", "draft", *drafts_first, *last, "first ends"]


@pytest.mark.parametrize("rule", [None, DRAWN], ids=["greedy", "drawn"])
def test_what_is_said_and_recorded_stays_the_same(
    listener: Listener, choice: ModelChoice, tmp_path: Path, rule: SamplingRule | None
) -> None:
    if rule is not None:
        choice = replace(choice, rule=rule, policy=parse_policy("chain", 4, 1, 4))
        listener.watch(load_models(choice))
    runs = {}
    for overlap in ("off", "on"):
        trace = tmp_path / f"{overlap}.jsonl"
        listener.run(choice, COMING, overlap, trace, batch_size=3)
        without_drafts = [word for word in listener.events if word != "draft"]
        with TraceReader(trace) as reader:
            records = [
                record.model_dump(exclude={"timing", "duration_ns", "prefill_ns"})
                for turn in reader.turns
                for record in (*reader.steps(turn), reader.turn_end(turn))
                if isinstance(record, Step | TurnEnd)
            ]
        runs[overlap] = (without_drafts, dict(listener.outputs), records)
        assert check_trace(trace).num_violations == 0
    assert runs["on"] == runs["off"]
    assert "cancelled ends" in listener.events


def test_the_time_it_takes_is_recorded(listener: Listener, choice: ModelChoice, tmp_path: Path) -> None:
    listener.run(choice, [FIRST], "on", tmp_path / "on.jsonl")
    with TraceReader(tmp_path / "on.jsonl") as reader:
        (turn,) = reader.turns
        times = [step.timing.deliver_ns for step in reader.steps(turn) if step.timing is not None]
    assert times[0] is None
    assert all(time is not None and time >= 0 for time in times[1:])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_waits_is_delivered_where_a_draft_fails(
    listener: Listener, choice: ModelChoice, error: type[BaseException]
) -> None:
    def failing() -> None:
        raise error

    listener.third = failing
    heard = []
    for overlap in ("off", "on"):
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else EngineError):
            listener.run(choice, [FIRST], overlap)
        heard.append((listener.outputs, [event for event in listener.events if event != "draft"]))
    assert heard[0] == heard[1]
    assert heard[0][1][-1] == "step 1"


def test_what_a_draft_drew_for_a_step_that_is_not_taken_counts_as_not_drawn(
    listener: Listener, choice: ModelChoice, tmp_path: Path
) -> None:
    def ending() -> None:
        raise KeyboardInterrupt

    drawn = replace(choice, rule=DRAWN, policy=parse_policy("chain", 4, 1, 4))
    listener.watch(load_models(drawn))
    listener.then = ending
    left = []
    for overlap in ("off", "on"):
        with pytest.raises(KeyboardInterrupt):
            listener.run(drawn, [FIRST], overlap, tmp_path / f"{overlap}.jsonl")
        with TraceReader(tmp_path / f"{overlap}.jsonl") as reader:
            end = reader.turn_end(reader.turns[0])
        assert end is not None
        left.append(end.generator_digest)
    assert left[0] == left[1] is not None


@pytest.mark.parametrize(("error", "reason"), [(KeyboardInterrupt, "interrupted"), (OSError, "failed")])
@pytest.mark.parametrize("overlap", ["off", "on"])
def test_who_is_told_may_end_the_run_and_no_phase_is_blamed(
    listener: Listener, choice: ModelChoice, tmp_path: Path, error: type[BaseException], reason: str, overlap: str
) -> None:
    def ending() -> None:
        raise error

    listener.then = ending
    trace = tmp_path / "ended.jsonl"
    with pytest.raises(Exception if error is OSError else error):  # of the run's own for a failure
        listener.run(choice, [FIRST], overlap, trace)
    report = check_trace(trace)
    assert (report.end_reason, report.num_violations, report.failures) == (reason, 0, [])
    with TraceReader(trace) as reader:
        (turn,) = reader.turns
        end = reader.turn_end(turn)
        assert len(list(reader.steps(turn))) == 2
    assert end is not None
    assert end.reason == reason


def test_it_is_for_devices_that_work_beside_the_host(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def overlaps(mode: Any, overlap: Any = "auto", device: str = "cpu") -> bool:
        monkeypatch.setattr(type(models.teacher), "device", torch.device(device))
        choice = ModelChoice(mode=mode, graph="off")
        return decoding_of(Settings(choice=choice, overlap=overlap), models.teacher).overlaps

    assert not overlaps("fused")
    assert overlaps("fused", "on")
    assert overlaps("fused", device="cuda")
    assert not overlaps("fused", "off", device="cuda")
    assert not overlaps("eager", device="cuda")
    with pytest.raises(UsageError, match="got overlap 'always', wanted one of auto, on, off"):
        Settings(overlap="always")  # type: ignore[arg-type]


def test_a_pipeline_has_no_such_choice() -> None:
    refused = specscope("run", "--prompt", "x", "--engine", "ppsd", "--stages", "2", "--overlap", "on")
    assert refused.code == 2
    assert "got --overlap on with --engine ppsd, which does not support it" in " ".join(refused.err.split())
