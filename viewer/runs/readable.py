"""A turn's steps where one of them may be broken: it takes nothing from the others. Knows no pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from specscope.schemas import Step
from specscope.tracer.errors import TraceError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader


def readable_steps(reader: TraceReader, turn: TurnEntry) -> Iterator[tuple[int, Step]]:
    """The steps of ``turn`` that can be read, each after its number, in order, one at a time."""
    for number in range(len(turn.steps)):
        with contextlib.suppress(TraceError):
            yield number, reader.step(turn, number)
