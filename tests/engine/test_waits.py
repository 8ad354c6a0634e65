"""A traced step waits for the device no more often than an untraced one, and its record is the one of a host.

As if every tensor lay on a device: what asks where a tensor lies is told so, and each read of a tensor is counted,
except of copies that have arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.drafting import PROMPTS, choice_of
from support.host_reads import HostReads
from support.traces import load

from specscope.engine.backends.cpu import Cpu
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop.phases import Decoding
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.record.manifest import RunFacts
from specscope.engine.record.recorder import TurnLabel
from specscope.engine.record.target import TraceTarget, ending
from specscope.engine.settings import ModelChoice, SamplingRule, Settings
from specscope.engine.tree.policy import parse_policy
from specscope.schemas.manifest import TraceLevel
from specscope.tracer.oracle.check import check_trace

ASKING = ("tree.grow", "loop.step", "cache.custody", "record.host", "record.recorder")
STEPS, TOKENS = 4, 40
OF_ONE_RUN = {"run_id", "created", "duration_ns", "timing"}
RULES = {
    "greedy": SamplingRule("greedy"),
    "sampling": SamplingRule("sampling", temperature=0.8, top_p=0.95),
    "drawn": SamplingRule("sampling", draft="sampled"),
    "typical": SamplingRule("typical"),
}


class Decoded(NamedTuple):
    """What a run came to."""

    reads: list[Counter[str]]  # a step each
    output_ids: list[list[int]]


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for module in ASKING:
        monkeypatch.setattr(f"specscope.engine.{module}.lies_on_host", lambda tensor: False)
    return monkeypatch


def choice_with(teacher: Path, head: Path, rule: str) -> ModelChoice:
    tree = "chain" if rule == "drawn" else "dynamic"
    return choice_of(teacher, f"eagle3:{head}", policy=parse_policy(tree, 4, 3, 9), rule=RULES[rule])


def run(models: Models, choice: ModelChoice, num_rows: int, trace: Path | None, level: TraceLevel) -> Decoded:
    """A few steps of as many prompts side by side, then the end of all."""
    checks: Any = "deferred"
    session = Session(models.teacher, models.drafter, Decoding(rule=choice.rule, checks=checks), num_rows)
    rules, recorder, writer = StopRules(TOKENS, [], []), None, None
    if trace is not None:
        target, settings = (
            TraceTarget(trace, level),
            Settings(choice=choice, max_new_tokens=TOKENS, batch_size=num_rows),
        )
        writer = target.open(pytest.fail)
        recorder = target.record(writer, RunFacts(settings, level, rules, None), models)
    reads = list[Counter[str]]()
    with HostReads() as device, waiting_on(device), ending(session, writer):
        results = []
        for row, prompt in enumerate(PROMPTS[:num_rows]):
            observer = recorder.turn(TurnLabel(row, prompt.id, 0, None)) if recorder is not None else None
            results.append(
                session.begin(row, TurnRequest(list(prompt.ids), rules, observer=observer, generator_seed=row))
            )
        for _ in range(STEPS):
            device.seen.clear()
            session.step()
            reads.append(+device.seen)
        session.abandon("interrupted")
    return Decoded(reads, [result.output_ids for result in results])


@contextmanager
def waiting_on(device: HostReads) -> Iterator[None]:
    """Inside, to synchronise is to wait for ``device``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cpu, "synchronise", lambda self, _: device.wait())
        yield


@pytest.mark.parametrize(
    ("rule", "num_rows", "level"),
    [
        *[(rule, num_rows, "decisions") for rule in RULES for num_rows in (1, 3)],
        *[("greedy", 3, level) for level in ("scores", "tensors")],
    ],
)
def test_a_traced_step_waits_as_often_as_an_untraced_one(
    far: pytest.MonkeyPatch,
    teacher_folder: Path,
    head_folder: Path,
    tmp_path: Path,
    rule: str,
    num_rows: int,
    level: TraceLevel,
) -> None:
    choice = choice_with(teacher_folder, head_folder, rule)
    models, trace = load_models(choice), tmp_path / "far.jsonl"
    plain = run(models, choice, num_rows, None, level)
    traced = run(models, choice, num_rows, trace, level)
    assert plain.reads[1:] == traced.reads[1:] == [Counter(tolist=1)] * (STEPS - 1)
    assert traced.output_ids == plain.output_ids
    far.undo()
    near = tmp_path / "near.jsonl"
    assert run(models, choice, num_rows, near, level).output_ids == plain.output_ids
    assert lines_of(trace) == lines_of(near), "what is written is what a host writes, in the same order"
    assert not check_trace(trace).num_violations


def lines_of(trace: Path) -> list[dict[str, Any]]:
    """All records, without what is of one run alone."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: cleaned(v) for k, v in value.items() if k not in OF_ONE_RUN | {"tensor_files"}}
        return value

    return [cleaned(line) for line in load(trace) if line["kind"] != "run_end"]


@pytest.mark.usefixtures("far")
def test_a_step_that_is_under_way_is_written_before_the_failure_behind_it(
    teacher_folder: Path, head_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, trace = choice_with(teacher_folder, head_folder, "greedy"), tmp_path / "trace.jsonl"
    models = load_models(choice)
    honest = models.drafter.propose
    calls = iter((honest, honest))

    def propose(*arguments: Any) -> Any:
        call = next(calls, None)
        if call is None:
            raise ValueError("no draft")
        return call(*arguments)

    monkeypatch.setattr(models.drafter, "propose", propose)
    with pytest.raises(ValueError, match="no draft"):
        run(models, choice, 1, trace, "decisions")
    kinds = [line["kind"] for line in load(trace)]
    assert kinds == ["manifest", "turn_start", "step", "step", "failure", "turn_end", "run_end"]


def test_a_copy_that_is_read_too_early_is_counted() -> None:
    with HostReads() as device:
        values, other = torch.arange(4) * 2, torch.arange(3)
        copy = values.to("cpu", non_blocking=True)
        copy.tolist()
        (copy + 1).sum().item()
        assert +device.seen == Counter({"too early": 2})  # the list, and the sum
        other.tolist()
        device.seen.clear()
        copy.tolist()
        assert not +device.seen
        other.to("cpu")
        assert +device.seen == Counter(to=1)


@pytest.mark.parametrize(("mode", "waits"), [("eager", True), ("fused", False)])
def test_the_phases_are_waited_for_where_the_run_waits_anyway(
    monkeypatch: pytest.MonkeyPatch, teacher_folder: Path, head_folder: Path, tmp_path: Path, mode: Any, waits: bool
) -> None:
    """A run that checks each tree before the kernel records what each phase took; another what it took to launch it."""
    synchronised: list[torch.device] = []
    monkeypatch.setattr(Cpu, "synchronise", lambda self, device: synchronised.append(device))
    choice = choice_with(teacher_folder, head_folder, "greedy")
    models, rules = load_models(choice), StopRules(TOKENS, [], [])
    session = Session(models.teacher, models.drafter, Decoding(checks="before" if waits else "deferred"))
    session.begin(0, TurnRequest(list(PROMPTS[0].ids), rules))
    session.step()
    assert not synchronised, "nobody observes"
    target = TraceTarget(tmp_path / "trace.jsonl")
    writer = target.open(pytest.fail)
    recorder = target.record(writer, RunFacts(Settings(choice=choice), "decisions", rules, None), models)
    with ending(session, writer):
        session.begin(0, TurnRequest(list(PROMPTS[1].ids), rules, observer=recorder.turn(TurnLabel(0, "p", 0, None))))
        session.step()
    (step,) = [line for line in load(tmp_path / "trace.jsonl") if line["kind"] == "step"]
    assert step["timing"]["synchronised"] is waits
    phases = [name for name in step["timing"] if name.endswith("_ns")]
    assert len(synchronised) == (len(phases) if waits else 0)
