"""Whenever an interrupt comes, the trace that is left agrees with itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from support.pipeline_runs import record_alone, record_pipeline
from support.recorded_runs import IDS, TinyRuns

from specscope.engine.loop.interrupts import held_interrupts
from specscope.engine.settings import GREEDY
from specscope.schemas import AnyRecord
from specscope.tracer.files.writer import TraceWriter
from specscope.tracer.oracle.check import check_trace


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """As a program is that no shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


Interrupting = Callable[[int, str], None]


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Interrupting:
    """Sends one interrupt as the record of a number is written, before or after it."""
    plain = TraceWriter.write

    def prepare(number: int, when: str) -> None:
        def write(self: TraceWriter, record: AnyRecord) -> None:
            comes = self.next_seq == number
            if comes and when == "before":
                signal.raise_signal(signal.SIGINT)
            plain(self, record)
            if comes and when == "after":
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(TraceWriter, "write", write)

    return prepare


def assert_agrees(trace: Path) -> None:
    report = check_trace(trace)
    assert report.end_reason == "interrupted"
    assert (report.num_violations, report.failures) == (0, [])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_of_trees(
    teacher_folder: Path, head_folder: Path, tmp_path: Path, interrupt_at: Interrupting, *, when: str, batch_size: int
) -> None:
    run = TinyRuns(teacher_folder, head_folder, tmp_path)
    whole = check_trace(run(batch_size=batch_size))
    last = whole.num_steps + 2 * len(IDS)  # the manifest is number 0; a turn begins and ends
    for number in range(1, last + 1):
        interrupt_at(number, when)
        with pytest.raises(KeyboardInterrupt):
            run(batch_size=batch_size)
        assert_agrees(tmp_path / "run.jsonl")


@pytest.mark.parametrize("when", ["before", "after"])
def test_of_a_pipeline(teacher_folder: Path, tmp_path: Path, interrupt_at: Interrupting, when: str) -> None:
    alone = record_alone(teacher_folder, tmp_path / "alone.jsonl", GREEDY)
    whole = check_trace(record_pipeline(alone, teacher_folder, GREEDY))
    for number in range(1, whole.num_steps + 3):
        interrupt_at(number, when)
        with pytest.raises(KeyboardInterrupt):
            record_pipeline(alone, teacher_folder, GREEDY)
        assert_agrees(tmp_path / "pipeline.jsonl")


def interrupted(block: Callable[[list[str]], None]) -> list[str]:
    """What ``block`` did; it must end by an interrupt, and leave the handler as it was."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        block(done)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return done


def test_a_held_interrupt_comes_when_the_block_is_left() -> None:
    def block(done: list[str]) -> None:
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the block")
        done.append("not reached")

    assert interrupted(block) == ["the rest of the block"]


def test_blocks_within_blocks_hold_for_the_outermost() -> None:
    def block(done: list[str]) -> None:
        with held_interrupts():
            with held_interrupts():
                signal.raise_signal(signal.SIGINT)
            done.append("the rest of the outer block")

    assert interrupted(block) == ["the rest of the outer block"]


def test_a_second_interrupt_does_not_wait() -> None:
    def block(done: list[str]) -> None:
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("not reached")

    assert interrupted(block) == []


def test_a_handler_of_the_programs_own_is_called_and_an_ignored_signal_stays_ignored() -> None:
    called = []

    def note(number: int, _: FrameType | None) -> None:
        called.append(number)

    before = signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interrupts():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert called == []
        assert called == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_of_the_block_is_the_context_of_the_interrupt() -> None:
    def block() -> None:
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("its own")

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert repr(caught.value.__context__) == "ValueError('its own')"


def test_all_handlers_are_back_even_where_a_signal_comes_as_they_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, before = signal.signal, signal.signal(signal.SIGTERM, lambda *_: None)
    ours = signal.getsignal(signal.SIGTERM)
    restoring = False

    def restored(number: int, handler: object) -> object:
        done = plain(number, handler)  # type: ignore[arg-type]
        if restoring and number == signal.SIGINT:
            signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(signal, "signal", restored)

    def block() -> None:
        nonlocal restoring
        with held_interrupts():
            restoring = True

    try:
        with pytest.raises(KeyboardInterrupt):
            block()
        assert signal.getsignal(signal.SIGTERM) is ours
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        plain(signal.SIGTERM, before)


def test_nothing_is_held_off_the_main_thread() -> None:
    seen = []

    def work() -> None:
        with held_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
