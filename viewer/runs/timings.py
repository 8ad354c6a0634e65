"""The recorded times of some steps of a turn, around one that is looked at. Knows no pages."""

from __future__ import annotations

from collections.abc import Callable

from specscope.tracer.errors import TraceError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.svg.phases import TimedStep, TimedSteps

ReadTimed = Callable[[int], TimedStep]


def steps_around(step: int, num_steps: int, most: int) -> range:
    """At most ``most`` of a turn's steps, with ``step`` in their middle where there are enough at both sides."""
    first = max(0, min(step - most // 2, num_steps - most))
    return range(first, min(num_steps, first + most))


def timed_step(reader: TraceReader, turn: TurnEntry, step: int) -> TimedStep:
    """A step with its times."""
    return TimedStep(step, reader.step(turn, step).timing)


def timed_steps(reader: TraceReader, turn: TurnEntry, steps: range, read: ReadTimed | None = None) -> TimedSteps:
    """Steps that follow each other, from the first with the turn's prefill; ``read`` may keep what it has read.

    A step that cannot be read is counted as such: it takes nothing from those around it.

    Raises:
        TraceError: where the record that begins the turn cannot be read.
    """
    prefill = reader.turn_start(turn).prefill if steps.start == 0 else None
    read = read or (lambda step: timed_step(reader, turn, step))
    return TimedSteps(
        steps=[_or_unreadable(read, step) for step in steps],
        prefill_ns=None if prefill is None else prefill.duration_ns,
        num_rows=reader.manifest.batch_size or 1,
    )


def _or_unreadable(read: ReadTimed, step: int) -> TimedStep:
    try:
        return read(step)
    except TraceError:
        return TimedStep(step, None, is_unreadable=True)
