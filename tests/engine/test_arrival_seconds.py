"""Requests that arrive by a clock in seconds: the trace has the steps at which they joined, and is judged, compared and
run again like any other. Time passes only where the tests say so, but for one run of the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.clocks import Time
from support.recorded_runs import TALKS, TinyRuns, words
from support.traced import record
from support.traces import load

from specscope.engine.cli.stream import RowTime
from specscope.engine.load.models import load_models
from specscope.engine.loop.rows import TakenRow, take_row
from specscope.engine.parallel.choice import check_settings
from specscope.engine.run.prompts import Prompt, Times, load_arrivals
from specscope.engine.run.runner import QUIET, RunRequest, TraceTarget, Workings, open_trace, run_turns
from specscope.engine.settings import ModelChoice, Settings
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

TOKENS = 10
STEP_S = 0.5
PROMPTS = [
    Prompt("first", ids=(5, 9, 2), times=Times(0.25)),
    Prompt("left", ids=tuple(range(3, 40)), times=Times(0.3, cancel_at=1.5)),
    Prompt("waits", ids=(44,), times=Times(0.6)),
    Prompt("late", ids=(44, 3, 3, 3, 60, 21, 7, 7), times=Times(3600.0)),
]


@pytest.fixture(scope="module")
def runs(teacher_folder: Path, head_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def recorded(runs: TinyRuns) -> tuple[Path, Time]:
    """A run whose steps take half a second each, and what passed the time."""
    time, trace = Time(), runs.folder / "seconds.jsonl"
    choice = runs.choice()
    settings = Settings(choice=choice, max_new_tokens=TOKENS, seed=7, batch_size=2, arrivals_clock="seconds")
    request, models = RunRequest(settings, PROMPTS, TraceTarget(trace)), load_models(choice)
    list(run_turns(request, models, open_trace(request, models), clock=time.clock(STEP_S)))
    return trace, time


def starts_of(trace: Path) -> dict[str, dict[str, Any]]:
    return {line["prompt_id"]: line for line in load(trace) if line["kind"] == "turn_start"}


def test_the_trace_has_the_steps_at_which_requests_joined(recorded: tuple[Path, Time]) -> None:
    trace, time = recorded
    starts = starts_of(trace)
    with TraceReader(trace) as reader:
        assert reader.manifest.arrivals_clock == "seconds"
        ends = {entry.prompt_id: reader.turn_end(entry) for entry in reader.turns}
    # It is looked at after each step: at 0.75, 1.25, 1.75.
    assert time.slept[0] == 0.25
    assert {name: (start.get("arrived_at", 0), start["joined_at"]) for name, start in starts.items()} == {
        "first": (0, 0),
        "left": (1, 1),
        "waits": (1, 3),
        "late": (starts["late"]["joined_at"],) * 2,
    }
    left = ends["left"]
    assert left is not None
    assert (left.reason, left.num_steps) == ("cancelled", 2)
    waited = {name: start["waited_ns"] for name, start in starts.items()}
    assert waited == {"first": 0, "left": 450_000_000, "waits": 1_150_000_000, "late": 0}
    steps = sum(line["kind"] == "step" for line in load(trace))
    assert starts["late"]["joined_at"] < steps, "nobody's steps are counted while the clock sleeps"


def test_what_is_said_of_it_is_what_happened(recorded: tuple[Path, Time]) -> None:
    trace, _ = recorded
    with TraceReader(trace) as reader:
        turn = next(entry.turn for entry in reader.turns if entry.prompt_id == "left")
    says = specscope("show", trace, "--turn", str(turn)).out
    assert "request: arrived at step 1, waited 0 steps (450 ms), row 1 from step 1 on; cancelled after 2 steps" in says
    out = specscope("metrics", trace).out
    assert "4 took a row, 1 of them cancelled" in out
    assert "mean 400.00  p50 225.0  p95 1150.0" in out


def test_it_is_sound_and_equal_to_the_single_runs(recorded: tuple[Path, Time], runs: TinyRuns) -> None:
    trace, _ = recorded
    assert check_trace(trace).num_violations == 0
    single = runs.folder / "single.jsonl"
    record(runs.choice(), [replace(prompt, times=Times()) for prompt in PROMPTS], single, tokens=TOKENS)
    verdict = diff_traces(single, trace)
    assert (verdict.verdict, verdict.uncovered, verdict.violations) == ("equal", [], [])
    assert "arrivals_clock: absent -> seconds" in verdict.axis


def test_it_is_replayed_without_a_clock(recorded: tuple[Path, Time], tmp_path: Path) -> None:
    trace, _ = recorded
    again = tmp_path / "again.jsonl"
    done = specscope("replay", trace, "--mode", "eager", "--out", again)
    assert done.code == 0, done
    assert check_trace(again).num_violations == 0
    assert diff_traces(trace, again).exit_code == 0


# Taking in a prompt takes time as well.

PREFILL_S = 2.0


def decoded_slowly(
    choice: ModelChoice, prompts: list[Prompt], trace: Path, *, tokens: int, batch_size: int
) -> list[tuple[str, int]]:
    """Decodes with a clock that passes only while prompts are taken in; the turns of prompts that never began."""
    time, vain = Time(), list[tuple[str, int]]()

    def take_slowly(taken: TakenRow) -> int:
        time.now += PREFILL_S
        return take_row(taken)

    def slow(workings: Workings) -> Workings:
        return replace(workings, phases=replace(workings.phases, take_row=take_slowly))

    settings = Settings(choice=choice, max_new_tokens=tokens, batch_size=batch_size, arrivals_clock="seconds")
    request, models = RunRequest(settings, prompts, TraceTarget(trace)), load_models(choice)
    if any(prompt.turns for prompt in prompts):
        models.teacher.tokenizer = words()
    events = QUIET._replace(never_began=lambda prompt, turn: vain.append((prompt.id, turn)))
    list(run_turns(request, models, open_trace(request, models), events, change=slow, clock=time.clock()))
    return vain


def test_who_takes_a_row_at_once_does_not_wait_for_the_prompts_of_others(runs: TinyRuns, tmp_path: Path) -> None:
    trace = tmp_path / "slow.jsonl"
    prompts = [replace(prompt, times=Times(0.0)) for prompt in PROMPTS[:3]]
    assert decoded_slowly(runs.choice(), prompts, trace, tokens=1, batch_size=2) == []
    waited = {name: start["waited_ns"] for name, start in starts_of(trace).items()}
    assert waited == {"first": 0, "left": 0, "waits": 2 * PREFILL_S * 1e9}


def test_where_every_turn_ends_with_its_first_token_cancels_are_still_looked_at(runs: TinyRuns, tmp_path: Path) -> None:
    trace = tmp_path / "slow.jsonl"
    times = [Times(0.0), Times(0.0), Times(0.0, cancel_at=3.5), Times(0.0)]
    prompts = [replace(prompt, times=when) for prompt, when in zip(PROMPTS, times, strict=True)]
    assert decoded_slowly(runs.choice(), prompts, trace, tokens=1, batch_size=1) == [("waits", 0)]
    assert list(starts_of(trace)) == ["first", "left", "late"]


def test_a_conversation_that_was_cancelled_begins_no_further_turn(runs: TinyRuns, tmp_path: Path) -> None:
    trace = tmp_path / "slow.jsonl"
    talk = replace(TALKS[0], times=Times(0.0, cancel_at=3.5))
    assert decoded_slowly(runs.choice(), [talk], trace, tokens=1, batch_size=1) == [("talk", 2)]
    assert [line["prompt_turn"] for line in load(trace) if line["kind"] == "turn_start"] == [0, 1]


# The file, and the command.


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_times_in_seconds_may_have_fractions(tmp_path: Path) -> None:
    path = write(tmp_path / "arrivals.jsonl", {"prompt": "x"}, {"prompt": "y", "arrives_at": 3, "cancel_at": 3.5})
    assert [prompt.times for prompt in load_arrivals(path, "seconds")] == [Times(0.0), Times(3.0, 3.5)]


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ('{"arrives_at": -0.5}', r"line 1: got arrives_at -0.5, wanted seconds, 0 to 1000000000$"),
        ('{"arrives_at": NaN}', r"got arrives_at nan, wanted seconds"),
        ('{"arrives_at": true}', r"got arrives_at True, wanted seconds"),
        ('{"arrives_at": 1e300}', r"got arrives_at 1e\+300, wanted seconds"),
        ('{"arrives_at": 1.5, "cancel_at": 1.5}', r"got cancel_at 1.5, wanted .*, after it arrives at 1.5$"),
        (
            '{"arrives_at": 1234567.25, "cancel_at": 1234567.125}',
            r"got cancel_at 1234567.125, .* arrives at 1234567.25$",
        ),
        ('{"cancel_at": "soon"}', r"got cancel_at 'soon', wanted seconds"),
    ],
)
def test_seconds_that_are_none_are_refused(tmp_path: Path, times: str, wanted: str) -> None:
    path = tmp_path / "arrivals.jsonl"
    path.write_text('{"prompt": "x", ' + times[1:] + "\n")
    with pytest.raises(UsageError, match=wanted):
        load_arrivals(path, "seconds")


def test_the_command_takes_seconds(tmp_path: Path) -> None:
    path = write(
        tmp_path / "arrivals.jsonl",
        {"id": "first", "prompt": "def add(a, b):"},
        {"id": "later", "prompt": "import os", "arrives_at": 0.01},
    )
    trace = tmp_path / "trace.jsonl"
    options = ("--arrivals", path, "--arrivals-clock", "seconds", "--max-new-tokens", "4", "--max-rows", "2")
    done = specscope("run", *options, "--trace", trace)
    assert done.code == 0, done.err
    assert {name: start["waited_ns"] >= 0 for name, start in starts_of(trace).items()} == {"first": True, "later": True}
    assert specscope("check", trace).code == 0
    in_steps = specscope("run", *options, "--arrivals-clock", "steps")
    assert (in_steps.code, "--arrivals-clock seconds takes fractions" in " ".join(in_steps.err.split())) == (2, True)


@pytest.mark.parametrize("max_rows", [1, 2])
def test_the_speed_counts_no_time_in_which_nobody_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_rows: int
) -> None:
    """However many rows there may be, the same work takes the same time where requests are far apart."""
    time = Time()
    monkeypatch.setattr("specscope.engine.run.runner.SecondsClock", lambda: time.clock(STEP_S))
    monkeypatch.setattr("specscope.engine.cli.run.RowTime", lambda: RowTime(lambda: time.now))
    path = write(
        tmp_path / "arrivals.jsonl",
        {"id": "first", "prompt": "def add(a, b):"},
        {"id": "later", "prompt": "import os", "arrives_at": 3600},
    )
    options = ("--arrivals", path, "--arrivals-clock", "seconds", "--max-new-tokens", "8")
    done = specscope("run", *options, "--max-rows", str(max_rows))
    summary = re.search(r"2 turns, (\d+) tokens in (\d+) steps, ([\d.]+) tokens/s while any row was taken", done.out)
    assert summary is not None, done
    tokens, steps, speed = map(float, summary.groups())
    assert speed == round(tokens / (steps * STEP_S), 1)
    assert sum(time.slept) > 3000


def test_time_that_turns_share_is_counted_once() -> None:
    time = Time()
    taken, prompt = RowTime(lambda: time.now), PROMPTS[0]
    events = taken.listening(QUIET)
    for happens, seconds in (("begins", 2), ("begins", 3), ("ends", 1), ("ends", 100), ("begins", 4), ("ends", 0)):
        if happens == "begins":
            events.turn_begins(prompt, 0)
        else:
            taken.turn_ends()
        time.now += seconds
    assert taken.seconds == 2 + 3 + 1 + 4


def test_seconds_are_refused_without_arrivals_and_among_ranks() -> None:
    done = specscope("run", "--prompt", "x", "--arrivals-clock", "seconds")
    assert (done.code, "got --arrivals-clock without --arrivals" in done.err) == (2, True)
    with pytest.raises(UsageError, match="got --arrivals-clock seconds with --tensor-parallel 2, which does not"):
        check_settings(Settings.of(num_ranks=2, arrivals_clock="seconds"))
