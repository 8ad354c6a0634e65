"""A ring keeps the last steps in memory, in whole turns, and writes whole traces when it must."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.tiny_models import POLICY
from support.traces import load

from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.load.models import Models, load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, Workings, open_trace, run_turns, unchanged
from specscope.engine.settings import ModelChoice, Settings
from specscope.tracer import TraceRing, check_trace, diff_traces
from specscope.tracer.errors import EngineError, UsageError
from specscope.tracer.files.ring import RingRun

PROMPTS = [Prompt(f"p{number}", ids=(5, 9, 2 + number)) for number in range(4)]


class Server:
    """Decodes with the tiny models, call after call, into one ring or one file."""

    def __init__(self, choice: ModelChoice) -> None:
        self.choice = choice
        self.models: Models = load_models(choice)

    def __call__(self, place: TraceRing | Path, prompts: list[Prompt], change: Any = unchanged) -> None:
        settings = Settings(choice=self.choice, max_new_tokens=16)
        request = RunRequest(settings, prompts, TraceTarget(place))
        list(run_turns(request, self.models, open_trace(request, self.models, warn=pytest.fail), change=change))


@pytest.fixture(scope="module")
def server(teacher_folder: Path, head_folder: Path) -> Server:
    drafter = f"eagle3:{head_folder}"
    return Server(ModelChoice(teacher=str(teacher_folder), drafter=drafter, device="cpu", policy=POLICY))


def test_what_is_asked_for_is_the_trace_that_a_file_would_have_been(server: Server, tmp_path: Path) -> None:
    ring = TraceRing(tmp_path / "ring")
    server(ring, PROMPTS)
    assert not (tmp_path / "ring").exists(), "nothing is written before it is asked for"
    (dumped,) = ring.dump()
    server(tmp_path / "file.jsonl", PROMPTS)
    report = check_trace(dumped)
    assert (report.num_violations, report.truncated, report.num_turns) == (0, False, 4)
    verdict = diff_traces(tmp_path / "file.jsonl", dumped)
    assert (verdict.verdict, verdict.roots) == ("equal", [])
    assert ring.dump() == [dumped], "asked again, the same run's file is written again"


def test_the_oldest_turns_are_forgotten_and_what_is_left_is_whole(server: Server, tmp_path: Path) -> None:
    server(tmp_path / "all.jsonl", PROMPTS)
    steps = [
        sum(line["kind"] == "step" and line["turn"] == turn for line in load(tmp_path / "all.jsonl"))
        for turn in range(4)
    ]
    ring = TraceRing(tmp_path / "ring", num_steps=sum(steps[2:]))
    server(ring, PROMPTS)
    (dumped,) = ring.dump()
    lines = load(dumped)
    assert [line["prompt_id"] for line in lines if line["kind"] == "turn_start"] == ["p2", "p3"]
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert not check_trace(dumped).num_violations


def test_calls_that_are_forgotten_whole_leave_no_file(server: Server, tmp_path: Path) -> None:
    ring = TraceRing(tmp_path / "ring", num_steps=1)
    for prompt in PROMPTS:
        server(ring, [prompt])
    assert ring.dump() == []
    ring = TraceRing(tmp_path / "wide")
    for prompt in PROMPTS:
        server(ring, [prompt])
    assert [path.name for path in ring.dump()] == [f"run-{number:05d}.jsonl" for number in range(1, 5)]


def test_a_failure_writes_by_itself_and_names_the_phase(server: Server, tmp_path: Path) -> None:
    def refuse(*_: object) -> NoReturn:
        raise RuntimeError("out of memory")

    def failing(workings: Workings) -> Workings:
        return replace(workings, phases=replace(workings.phases, accept=refuse))

    ring = TraceRing(tmp_path / "ring")
    with pytest.raises(EngineError):
        server(ring, PROMPTS[:1], failing)
    (path,) = (tmp_path / "ring").iterdir()
    failure = next(line for line in load(path) if line["kind"] == "failure")
    assert (failure["phase"], failure["message"]) == ("accept", "out of memory")


def test_a_turn_that_violates_something_in_every_step_is_written_when_it_begins_to_and_when_it_ends(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = TraceRing(tmp_path / "ring")
    written: list[int] = []
    honest = RingRun.dump

    def dump(run: RingRun) -> Path | None:
        written.append(run.next_seq)
        return honest(run)

    monkeypatch.setattr(RingRun, "dump", dump)
    server(ring, PROMPTS[:1], injecting(find_fault("F16")))
    assert len(written) == 2
    (path,) = (tmp_path / "ring").iterdir()
    report = check_trace(path)
    assert report.num_violations > 2
    assert not report.truncated


def test_a_signal_writes_what_is_held_while_a_turn_runs(server: Server, tmp_path: Path) -> None:
    ring = TraceRing(tmp_path / "ring")
    before = signal.getsignal(signal.SIGUSR1)
    ring.dump_on(signal.SIGUSR1)
    seen: list[Any] = []

    def signalling(workings: Workings) -> Workings:
        honest = workings.phases.stop

        def stop(*given: Any) -> Any:
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            seen.append(given)
            return honest(*given)

        return replace(workings, phases=replace(workings.phases, stop=stop))

    try:
        server(ring, PROMPTS[:1], signalling)
    finally:
        signal.signal(signal.SIGUSR1, before)
    (path,) = (tmp_path / "ring").glob("*.jsonl")
    report = check_trace(path)
    assert report.truncated
    assert report.num_steps == 2
    assert not report.num_violations


def test_nothing_of_others_is_overwritten(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run-00001.jsonl").write_text("somebody's\n")
    warnings: list[str] = []
    ring = TraceRing(tmp_path, warn=warnings.append)
    server(ring, PROMPTS[:1])
    assert ring.dump() == []
    assert "exists already" in warnings[0]
    assert (tmp_path / "run-00001.jsonl").read_text() == "somebody's\n"


def test_what_a_ring_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        TraceRing(tmp_path, num_steps=0)
    with pytest.raises(UsageError, match="wanted decisions or scores"):
        TraceTarget(TraceRing(tmp_path), "tensors")
