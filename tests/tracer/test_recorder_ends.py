"""The recorder, whatever goes wrong: the file is closed, and the trace says how it ended and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.recorder_calls import ABOUT, LAST, STEP
from support.traces import load

from specscope.schemas import Failure
from specscope.tracer import Recorder, TraceReader, check_trace, diff_traces
from specscope.tracer.errors import UsageError


def failures_of(file: Path) -> list[Failure]:
    with TraceReader(file) as reader:
        return reader.failures()


def write_whole(file: Path) -> None:
    with Recorder(file, overwrite=True, **ABOUT) as trace:
        one_turn(trace, "length")


def one_turn(trace: Recorder, reason: Any) -> None:
    turn = trace.turn("a", [3, 1, 4], 7)
    turn.step(**STEP)
    turn.end(reason)


def test_a_turn_that_ends_for_no_known_reason_costs_neither_the_step_nor_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with pytest.raises(UsageError) as caught, Recorder(file, **ABOUT) as trace:
        one_turn(trace, "max_tokens")
    assert str(caught.value) == (
        "turn 0: got turn.end(reason='max_tokens'), wanted one of eos, length, stop_string, criterion, cancelled, "
        "interrupted, failed"
    )
    assert [line["kind"] for line in load(file)] == ["manifest", "turn_start", "step", "failure", "run_end"]
    assert [failure.error for failure in failures_of(file)] == ["UsageError"]
    write_whole(file)  # while the error, and so the recorder, is still held
    assert check_trace(file).end_reason == "complete"


@pytest.mark.parametrize(
    "use",
    [
        lambda trace: trace.turn("a", [3, 1, 4], 7).step(**STEP | {"path": [9]}),
        lambda trace: trace.turn("a", [3, 1, 4], 7).step(**STEP, texts={"4": "\ud800"}),
        lambda trace: trace.turn("\ud800", [3, 1, 4], 7),
        lambda trace: trace.turn("a", [3, 1, 4], 7).step(**STEP, timing=3),
        lambda trace: trace.turn("a", [3, 1, 4], 7).step(**STEP, accept=3),
        lambda trace: trace.turn("a", [3, 1, 4], 7).step(**STEP, tensors=[1]),
        lambda trace: trace.turn("a", [3, 1, 4], 7).end(["length"]),
        lambda trace: trace.turn("a", [3, 1, 4], 7).step(**STEP),  # and never ended
        lambda trace: 1 // 0,
    ],
)
def test_whatever_goes_wrong_the_file_is_closed_and_says_why(tmp_path: Path, use: Any) -> None:
    file = tmp_path / "a.jsonl"
    with pytest.raises((UsageError, ZeroDivisionError)) as caught, Recorder(file, **ABOUT) as trace:
        use(trace)
    report = check_trace(file)
    assert (report.end_reason, report.num_violations, len(report.failures)) == ("failed", 0, 1)
    assert report.failures[0].error == caught.type.__name__
    write_whole(file)


def decode(trace: Recorder, error: BaseException) -> None:
    one_turn(trace, "length")
    trace.turn("b", [3, 1], 7).step(**STEP)
    raise error


def test_an_exception_of_the_engine_is_recorded_where_it_struck(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with pytest.raises(RuntimeError), Recorder(file, **ABOUT) as trace:
        decode(trace, RuntimeError("CUDA out of memory"))
    (failure,) = failures_of(file)
    assert (failure.turn, failure.step, failure.phase) == (1, 1, None)
    assert (failure.error, failure.message) == ("RuntimeError", "CUDA out of memory")
    words = "the run stopped in turn 1, step 1: RuntimeError: CUDA out of memory"
    checked = specscope("check", "a.jsonl", cwd=tmp_path)
    assert (checked.code, words in checked.out) == (1, True)
    assert words in specscope("show", "a.jsonl", "--turn", "1", cwd=tmp_path).out
    assert words not in specscope("show", "a.jsonl", "--turn", "0", cwd=tmp_path).out
    write_whole(tmp_path / "b.jsonl")
    compared = diff_traces(tmp_path / "b.jsonl", file).uncovered
    assert compared[0] == "the candidate stopped in turn 1, step 1: RuntimeError: CUDA out of memory"


def test_an_exception_before_the_first_turn_is_recorded_without_a_place(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Recorder(tmp_path / "a.jsonl", **ABOUT):
        raise RuntimeError("no such device")
    words = "the run stopped: RuntimeError: no such device"
    assert words in specscope("check", "a.jsonl", cwd=tmp_path).out
    shown = specscope("show", "a.jsonl", cwd=tmp_path)
    assert (shown.code, words in shown.out) == (2, True)


def test_a_failed_run_whose_writer_is_silent_is_said_to_be_so(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    trace = Recorder(file, **ABOUT)
    trace._writer.finish("failed")
    assert "the run failed, and its writer did not record why" in specscope("check", "a.jsonl", cwd=tmp_path).out


def test_rows_that_ran_side_by_side_all_stopped(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    trace = Recorder(file, batch_size=2, **ABOUT)
    trace.turn("a", [3, 1], 7, row=0).step(**STEP)
    trace.turn("b", [3, 1], 7, row=1)
    trace.__exit__(RuntimeError, RuntimeError("out of memory"), None)
    assert [(failure.turn, failure.step) for failure in failures_of(file)] == [(0, 1), (1, 0)]


def test_a_person_who_interrupts_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path / "a.jsonl", **ABOUT) as trace:
        decode(trace, KeyboardInterrupt())
    assert check_trace(tmp_path / "a.jsonl").end_reason == "interrupted"
    assert failures_of(tmp_path / "a.jsonl") == []


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("a \ud800 b"), "a ? b"),
        (UnspeakableError(), "the message cannot be shown: ValueError"),
    ],
)
def test_a_message_that_no_file_can_hold_ends_the_trace_all_the_same(
    tmp_path: Path, error: Exception, message: str
) -> None:
    with pytest.raises(type(error)), Recorder(tmp_path / "a.jsonl", **ABOUT) as trace:
        decode(trace, error)
    assert [failure.message for failure in failures_of(tmp_path / "a.jsonl")] == [message]


def test_the_message_is_withheld_where_the_trace_is_redacted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Recorder(tmp_path / "a.jsonl", redaction="0" * 16, **ABOUT) as trace:
        decode(trace, RuntimeError("the prompt was: secret"))
    assert "secret" not in (tmp_path / "a.jsonl").read_text()
    assert failures_of(tmp_path / "a.jsonl")[0].message == "withheld: the trace is redacted"


def test_a_recorder_of_this_process_that_was_not_closed_is_said_to_be_one(tmp_path: Path) -> None:
    first = Recorder(tmp_path / "a.jsonl", **ABOUT)
    with pytest.raises(UsageError, match=r"this process is still writing .*: close the recorder that has it"):
        write_whole(tmp_path / "a.jsonl")
    first.close()
    write_whole(tmp_path / "a.jsonl")


def test_a_turn_that_has_ended_takes_nothing_more(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.jsonl", **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP)
        turn.end("length")
        with pytest.raises(UsageError, match="turn 0 has ended already: begin another"):
            turn.end("length")
        with pytest.raises(UsageError, match="turn 0 has ended already: begin another"):
            turn.step(**LAST)
    assert check_trace(tmp_path / "a.jsonl").num_violations == 0


def test_what_becomes_of_the_callers_lists_after_a_step_is_not_recorded(tmp_path: Path) -> None:
    top: dict[str, Any] = {"top_tokens": [[4, 1], [8, 1], [9, 1], [2, 1]], "top_logits": [[2.0, 1.0]] * 4}
    with Recorder(tmp_path / "a.jsonl", **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP, verify=top)
        top["top_tokens"][0][0] = 99  # a buffer that is used again
        turn.end("length")
    step = next(line for line in load(tmp_path / "a.jsonl") if line["kind"] == "step")
    assert step["verify"]["top_tokens"][0] == [4, 1]
