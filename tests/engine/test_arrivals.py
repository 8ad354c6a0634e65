"""Requests that arrive, leave and are cancelled while others run: each one's tokens are those of its single run, and
what is recorded of their rows is sound, equal to the single run by prompt, and can be run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.called import specscope
from support.recorded_runs import TALKS, TinyRuns
from support.traced import record
from support.traces import load

from specscope.engine.lab.bisect.schedule import Add, Begin, plan_batch
from specscope.engine.load.models import Models, load_models
from specscope.engine.run.prompts import Prompt, Times, load_arrivals, load_prompts
from specscope.engine.run.runner import RunRequest, TurnEvents, run_turns
from specscope.engine.settings import (
    ARRIVALS_CLOCKS,
    GREEDY,
    ArrivalsClock,
    ModelChoice,
    SamplingRule,
    Settings,
)
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

PROMPTS = [
    Prompt("short", ids=(5, 9, 2)),
    Prompt("long", ids=tuple(range(3, 40))),
    Prompt("one", ids=(44,)),
    Prompt("repeats", ids=(44, 3, 3, 3, 60, 21, 7, 7)),
    Prompt("middling", ids=tuple(range(50, 30, -1))),
]
TOKENS = 14
DRAWN = SamplingRule("sampling", temperature=0.8)
#: Rows are taken at once, waited for, and left early by a request that is cancelled; "one" comes when all are gone.
TIMES = [Times(0), Times(0, cancel_at=3), Times(300), Times(1), Times(1)]
ARRIVING = [replace(prompt, times=when) for prompt, when in zip(PROMPTS, TIMES, strict=True)]
CANCELLED = {prompt.id for prompt in ARRIVING if prompt.times.cancel_at is not None}


@pytest.fixture(scope="module")
def runs(teacher_folder: Path, head_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def alone(runs: TinyRuns) -> Callable[[ModelChoice], tuple[Path, dict[str, list[int]]]]:
    """The single runs of the prompts, once for each choice: their trace, and their tokens."""

    @cache
    def decode(choice: ModelChoice) -> tuple[Path, dict[str, list[int]]]:
        trace = runs.folder / f"alone-{choice.drafter.partition(':')[0]}-{choice.mode}-{choice.rule.rule}.jsonl"
        return trace, record(choice, PROMPTS, trace, tokens=TOKENS).output_ids

    return decode


#: Every pair of settings is there.
KINDS = [
    ("eagle3", "fused", GREEDY, "dense"),
    ("eagle3", "eager", GREEDY, "paged"),
    ("eagle3", "fused", DRAWN, "paged"),
    ("eagle3", "eager", DRAWN, "dense"),
    ("ngram", "fused", GREEDY, "paged"),
    ("ngram", "eager", GREEDY, "dense"),
    ("ngram", "fused", DRAWN, "dense"),
    ("ngram", "eager", DRAWN, "paged"),
]


@pytest.mark.parametrize(("drafter", "mode", "rule", "cache_name"), KINDS)
def test_each_requests_tokens_are_its_single_runs(
    runs: TinyRuns, alone: Any, tmp_path: Path, drafter: str, mode: str, rule: SamplingRule, cache_name: str
) -> None:
    choice = runs.choice(drafter, mode, rule=rule)
    alone_trace, wanted = alone(choice)
    trace = tmp_path / "batch.jsonl"
    outputs = record(choice, ARRIVING, trace, tokens=TOKENS, batch_size=2, cache=cache_name).output_ids
    for name, output in outputs.items():
        assert output == wanted[name][: len(output)]
        assert len(output) == len(wanted[name]) or name in CANCELLED
    report = check_trace(trace)
    assert report.num_violations == 0
    judged = {"rows.free-when-taken", "rows.nothing-kept"} | ({"rows.draws-anew"} if rule is DRAWN else set())
    for name in judged:
        assert (report.invariants[name].passed, report.invariants[name].skipped) == (len(outputs), 0)
    verdict = diff_traces(alone_trace, trace)
    assert (verdict.verdict, verdict.uncovered, verdict.violations) == ("equal", [], [])
    (cancelled,) = CANCELLED
    (unjudged,) = verdict.unjudged
    assert f"(prompt {cancelled}): cancelled in the candidate; the outputs are equal" in unjudged
    assert f"for {len(outputs[cancelled])} tokens" in unjudged


@pytest.mark.parametrize("drafter", ["eagle3+ngram", "model", "early-exit", "none"])
def test_other_drafters_forget_a_row_as_well(runs: TinyRuns, tmp_path: Path, drafter: str) -> None:
    if drafter == "early-exit":
        choice = replace(runs.choice(), teacher="demo", drafter="early-exit")
    else:
        choice = runs.choice(drafter)
    models = load_models(choice)
    wanted = record(choice, PROMPTS, None, models=models, tokens=TOKENS).output_ids
    trace = tmp_path / "batch.jsonl"
    outputs = record(choice, ARRIVING, trace, models=models, tokens=TOKENS, batch_size=2).output_ids
    assert all(output == wanted[name][: len(output)] for name, output in outputs.items())
    assert check_trace(trace).num_violations == 0


@st.composite
def arrivals(draw: st.DrawFn) -> list[Prompt]:
    """Some of the prompts, each at its time."""
    chosen = draw(st.lists(st.sampled_from(PROMPTS), min_size=1, unique_by=lambda prompt: prompt.id))
    requests = []
    for prompt in chosen:
        arrives_at = draw(st.integers(0, 8))
        stays = draw(st.none() | st.integers(1, 8))
        requests.append(replace(prompt, times=Times(arrives_at, None if stays is None else arrives_at + stays)))
    return requests


@pytest.fixture(scope="module")
def loaded(runs: TinyRuns) -> Callable[[ModelChoice], Models]:
    return cache(load_models)


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(requests=arrivals(), max_rows=st.integers(1, 3), paged=st.booleans(), drawn=st.booleans())
def test_whenever_requests_come_and_go_each_has_its_own_tokens(
    runs: TinyRuns,
    alone: Any,
    loaded: Any,
    tmp_path: Path,
    requests: list[Prompt],
    max_rows: int,
    paged: bool,
    drawn: bool,
) -> None:
    choice = runs.choice(rule=DRAWN if drawn else GREEDY)
    _, wanted = alone(choice)
    trace = tmp_path / "batch.jsonl"
    cache_name = "paged" if paged else "dense"
    outputs = record(
        choice, requests, trace, models=loaded(choice), tokens=TOKENS, batch_size=max_rows, cache=cache_name
    ).output_ids
    by_id = {request.id: request for request in requests}
    for name, request in by_id.items():
        output = outputs.get(name, [])
        assert output == wanted[name][: len(output)]
        assert len(output) == len(wanted[name]) or request.times.cancel_at is not None
    report = check_trace(trace)
    assert (report.num_violations, report.num_turns) == (0, len(outputs))


def test_the_trace_says_when_a_row_was_taken_and_left(runs: TinyRuns, tmp_path: Path) -> None:
    trace = tmp_path / "batch.jsonl"
    record(runs.choice(), ARRIVING, trace, tokens=TOKENS, batch_size=2)
    lines = load(trace)
    starts = {line["prompt_id"]: line for line in lines if line["kind"] == "turn_start"}
    ends = {line["turn"]: line for line in lines if line["kind"] == "turn_end"}
    for prompt in ARRIVING:
        start = starts[prompt.id]
        assert start.get("arrived_at", 0) == prompt.times.arrives_at <= start["joined_at"]
        assert start["held"] == {"committed_length": 0, "num_pairs": 0}
        end = ends[start["turn"]]
        if prompt.times.cancel_at is None:
            assert end["reason"] in ("length", "eos")
        else:
            assert end["reason"] == "cancelled"
            assert start["joined_at"] + end["num_steps"] == prompt.times.cancel_at
    assert starts["one"]["joined_at"] == 300, "the clock went on to it"
    moved = [line["row"] for line in lines if line["kind"] in ("step", "turn_end") and "row" in line]
    assert set(moved) <= {0}, "of two rows, one that moves becomes the first"


def test_a_conversation_keeps_its_row_for_all_its_turns(runs: TinyRuns) -> None:
    talks = [replace(talk, times=Times(number)) for number, talk in enumerate(TALKS)]
    single = runs("talks-alone", prompts=TALKS, tokens=6)
    trace = runs("talks", prompts=[*talks, replace(PROMPTS[0], times=Times(2))], tokens=6, batch_size=2)
    assert check_trace(trace).num_violations == 0
    verdict = diff_traces(single, trace)
    assert not verdict.roots
    assert verdict.uncovered == ["only in the candidate: turn 3 (prompt short)"] or len(verdict.uncovered) == 1
    held = [line["held"] for line in load(trace) if line["kind"] == "turn_start" and line["prompt_turn"] > 0]
    assert all(row["committed_length"] == row["num_pairs"] > 0 for row in held)


def test_a_cancelled_conversation_begins_no_further_turn(runs: TinyRuns) -> None:
    talk = replace(TALKS[0], times=Times(0, cancel_at=1))
    trace = runs("cut", prompts=[talk, PROMPTS[0]], tokens=12, batch_size=1)
    ends = [(line["turn"], line["reason"]) for line in load(trace) if line["kind"] == "turn_end"]
    assert ends == [(0, "cancelled"), (1, "length")]


def test_a_batch_that_rows_joined_is_replayed_and_stood_again(runs: TinyRuns, tmp_path: Path) -> None:
    trace = tmp_path / "batch.jsonl"
    record(runs.choice(), ARRIVING, trace, tokens=TOKENS, batch_size=2)
    again = tmp_path / "again.jsonl"
    done = specscope("replay", trace, "--mode", "eager", "--out", again)
    assert done.code == 0, done
    assert not check_trace(again).num_violations
    assert diff_traces(trace, again).exit_code == 0
    with TraceReader(trace) as reader:
        for entry in reader.turns:
            if entry.steps:
                plan = plan_batch(reader, entry.turn, len(entry.steps) - 1)
                assert plan is not None
                assert sum(isinstance(action, Add) for action in plan.actions) >= 1
                assert [action.entry.turn for action in plan.actions if isinstance(action, Begin)] == sorted(
                    action.entry.turn for action in plan.actions if isinstance(action, Begin)
                )


@pytest.mark.parametrize("fault", ["F39.prefix", "F39.drafter", "F39.generator"])
@pytest.mark.parametrize("cache_name", ["dense", "paged"])
def test_what_a_row_keeps_is_found_and_blamed(
    runs: TinyRuns, alone: Any, tmp_path: Path, fault: str, cache_name: str
) -> None:
    choice = runs.choice(rule=DRAWN)
    alone_trace, _ = alone(choice)
    trace = tmp_path / "faulty.jsonl"
    record(choice, ARRIVING, trace, tokens=TOKENS, batch_size=2, cache=cache_name, fault=fault)
    verdict = diff_traces(alone_trace, trace)
    assert verdict.verdict == "different"
    assert verdict.roots[0].wrong == "candidate"
    rule = "rows.draws-anew" if fault == "F39.generator" else "rows.nothing-kept"
    assert rule in {blame.invariant for blame in verdict.roots[0].blame}


@pytest.mark.parametrize("fault", ["F39.prefix", "F39.drafter"])
def test_a_row_that_nobody_had_keeps_nothing_even_with_the_fault(runs: TinyRuns, tmp_path: Path, fault: str) -> None:
    trace = tmp_path / "fresh.jsonl"
    record(runs.choice(), PROMPTS[:2], trace, tokens=TOKENS, batch_size=2, fault=fault)
    assert check_trace(trace).num_violations == 0


# The file, and the command.


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_of_arrivals_is_a_file_of_prompts_with_times(tmp_path: Path) -> None:
    path = write(
        tmp_path / "arrivals.jsonl",
        {"id": "a", "prompt": "x = 1"},
        {"id": "b", "turns": ["hello", "and now?"], "arrives_at": 3, "cancel_at": 9},
    )
    assert [prompt.times for prompt in load_arrivals(path)] == [Times(0, None), Times(3, 9)]
    assert [replace(prompt, times=Times()) for prompt in load_arrivals(path)] == load_prompts(path)


@pytest.mark.parametrize("clock", ARRIVALS_CLOCKS)
def test_a_time_that_is_null_is_one_that_is_left_out(tmp_path: Path, clock: ArrivalsClock) -> None:
    path = write(tmp_path / "arrivals.jsonl", {"prompt": "x", "arrives_at": None, "cancel_at": None})
    assert [prompt.times for prompt in load_arrivals(path, clock)] == [Times()]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"arrives_at": -1}, r"line 1: got arrives_at -1, wanted a number of steps, 0 or more"),
        ({"arrives_at": True}, r"got arrives_at True, wanted a number of steps"),
        ({"arrives_at": 1.5}, r"got arrives_at 1.5, wanted a number of steps"),
        ({"arrives_at": 4, "cancel_at": 4}, r"got cancel_at 4, wanted a number of steps, 5 or more, after it arrives"),
        ({"cancel_at": "soon"}, r"got cancel_at 'soon', wanted a number of steps, 1 or more, after it arrives"),
    ],
)
def test_times_that_are_none_are_refused(tmp_path: Path, times: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "arrivals.jsonl", {"prompt": "x", **times})
    with pytest.raises(UsageError, match=words):
        load_arrivals(path)


def test_the_command_decodes_arrivals_and_says_who_never_began(tmp_path: Path) -> None:
    path = write(
        tmp_path / "arrivals.jsonl",
        {"id": "first", "prompt": "def add(a, b):"},
        {"id": "vain", "prompt": "x = 1", "cancel_at": 1},
        {"id": "later", "prompt": "import os", "arrives_at": 2},
        {"id": "left", "prompt": "class Tree:", "arrives_at": 50, "cancel_at": 51},
    )
    trace = tmp_path / "trace.jsonl"
    options = ("--arrivals", path, "--max-new-tokens", "8", "--max-rows", "1")
    done = specscope("run", *options, "--trace", trace)
    assert done.code == 0, done.err
    assert "prompt vain was cancelled before a row was free" in done.err
    assert "[cancelled]" in done.out
    assert check_trace(trace).num_turns == 3
    single = tmp_path / "single.jsonl"
    assert specscope("run", "--prompts", path, "--max-new-tokens", "8", "--trace", single).code == 0
    assert "only in the baseline: turn 1" in specscope("diff", single, trace).out
    lines = [json.loads(line) for line in specscope("run", *options, "--json").out.splitlines()]
    reasons = {line["id"]: line["reason"] for line in lines}
    assert reasons == {"first": "length", "later": "length", "left": "cancelled"}


def test_arrivals_are_refused_beside_prompts_and_in_a_pipeline(tmp_path: Path) -> None:
    path = write(tmp_path / "arrivals.jsonl", {"prompt": "x = 1"})
    both = specscope("run", "--arrivals", path, "--prompt", "x")
    assert (both.code, "give either --prompt TEXT or --prompts FILE, or --arrivals FILE" in both.err) == (2, True)
    staged = specscope("run", "--arrivals", path, "--engine", "ppsd", "--stages", "2")
    assert staged.code == 2
    assert "got --arrivals with --engine ppsd" in " ".join(staged.err.split())


def test_a_conversation_that_is_cancelled_as_a_turn_ends_begins_no_further_turn(tmp_path: Path) -> None:
    """The first turn takes one token a step without a drafter, after the first one: it ends at step 2."""
    path = write(tmp_path / "arrivals.jsonl", {"id": "talk", "turns": ["x = 1", "y = 2"], "cancel_at": 2})
    done = specscope("run", "--arrivals", path, "--drafter", "none", "--max-new-tokens", "3", "--json")
    (turn,) = map(json.loads, done.out.splitlines())
    assert (turn["prompt_turn"], turn["reason"], turn["metrics"]["num_steps"]) == (0, "length", 2)
    assert "prompt talk was cancelled before its turn 1 began" in done.err


def test_who_waits_in_vain_is_told_of(runs: TinyRuns) -> None:
    choice = runs.choice()
    vain = replace(PROMPTS[1], times=Times(0, cancel_at=1))
    request = RunRequest(Settings(choice=choice, max_new_tokens=6), [PROMPTS[0], vain])
    names: list[str] = []
    events = TurnEvents(lambda *_: None, lambda *_: None, never_began=lambda prompt, _: names.append(prompt.id))
    reports = list(run_turns(request, load_models(choice), None, events))
    assert [report.prompt_id for report in reports] == ["short"]
    assert names == ["long"]
