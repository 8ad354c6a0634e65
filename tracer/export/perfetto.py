"""Stage timings as trace events in JSON, which Perfetto and chrome://tracing open.

A trace records how long phases took: they are laid one after another. When a step began is recorded by some writers;
otherwise what lies between two steps is not shown. Where rows were decoded side by side, every turn begins at 0, and
its times are those of all rows together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from specscope.schemas import Step
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import printable, shorten

PROCESS = 1
#: A hostile record's time may be a number of any size.
LONGEST_NS = 1 << 62


def perfetto_trace(reader: TraceReader) -> dict[str, Any]:
    """The whole run as one object: ``traceEvents``, times in microseconds, a thread for each turn.

    Raises:
        TraceError: where a record cannot be read.
    """
    return {
        "traceEvents": list(_events(reader)),
        "displayTimeUnit": "ms",
        "otherData": {
            "engine": shorten(printable(reader.manifest.engine), 200),
            "run_id": shorten(printable(reader.manifest.run_id), 200),
            "note": "phases are laid one after another; gaps between steps are shown where begun_ns was recorded",
        },
    }


def _events(reader: TraceReader) -> Iterator[dict[str, Any]]:
    yield _name("process_name", 0, shorten(printable(reader.path.name), 200))
    one_by_one = (reader.manifest.batch_size or 1) == 1
    now = 0.0
    for number, turn in enumerate(reader.turns, start=1):
        events, end = _turn_events(reader, turn, number, now if one_by_one else 0.0)
        yield from events
        now = end


def _turn_events(reader: TraceReader, turn: TurnEntry, thread: int, now: float) -> tuple[list[dict[str, Any]], float]:
    """The events of one turn that begins at ``now``, and when it ends."""
    events = [_name("thread_name", thread, shorten(printable(f"turn {turn.turn} {turn.prompt_id}"), 200))]
    prefill = reader.turn_start(turn).prefill
    if prefill is not None and prefill.duration_ns is not None:
        length = _microseconds(prefill.duration_ns)
        events.append(_slice("prefill", _Span(thread, now, length), {"tokens": prefill.num_tokens}))
        now += length
    start = events[-1]["ts"] if len(events) > 1 else now
    for step in reader.steps(turn):
        begun = step.timing.begun_ns if step.timing is not None else None
        now = now if begun is None else start + _microseconds(begun)
        rows = _step_events(step, thread, now)
        events += rows
        now += rows[0]["dur"] if rows else 0.0
    return events, now


def _step_events(step: Step, thread: int, now: float) -> list[dict[str, Any]]:
    """The step, within it its phases, and a count of what was accepted; empty where no times were recorded."""
    if step.timing is None:
        return []
    lengths = {name: getattr(step.timing, f"{name}_ns") for name in TIMED_PHASES}
    known = {name: _microseconds(ns) for name, ns in lengths.items() if ns is not None}
    words = {"step": step.step, "synchronised": step.timing.synchronised}
    accepted = step.accept.accepted_length if step.accept is not None else None
    words |= {"accepted_length": accepted} if accepted is not None else {}
    events = [_slice(f"step {step.step}", _Span(thread, now, sum(known.values())), words)]
    at = now
    for name, length in known.items():
        events.append(_slice(name, _Span(thread, at, length), {}))
        at += length
    if accepted is not None:
        counter = {"name": f"accepted length, thread {thread}", "ph": "C", "pid": PROCESS, "ts": now}
        events.append({**counter, "args": {"nodes": accepted}})
    return events


class _Span(NamedTuple):
    """Where a slice lies."""

    thread: int
    start: float  # microseconds
    length: float


def _slice(name: str, span: _Span, words: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "cat": "specscope",
        "ph": "X",
        "pid": PROCESS,
        "tid": span.thread,
        "ts": span.start,
        "dur": span.length,
        "args": words,
    }


def _name(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": PROCESS, "tid": thread, "args": {"name": name}}


def _microseconds(ns: int) -> float:
    return min(max(ns, 0), LONGEST_NS) / 1000
