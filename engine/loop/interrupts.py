"""Signals that end a run wait while a step is noted: between what a turn came to and its record, they would leave a
trace that contradicts itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HELD: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Within it, a signal that a handler of ours or Python's awaits is kept, and handled when the block is left, by an
    error as well. Of blocks within blocks the outermost counts.

    A second signal is handled at once: the block may wait for a reader of the trace. Off the main thread, which alone
    runs handlers, nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    for number in HELD:
        handler = signal.getsignal(number)
        if callable(handler):
            handlers[number] = handler

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 2:
            handlers[number](number, frame)

    try:
        for number in handlers:
            signal.signal(number, hold)
        yield
    finally:
        _restore(list(handlers.items()))
        for number in came[:1]:
            handlers[number](number, None)


def _restore(handlers: list[tuple[int, Callable[[int, FrameType | None], object]]]) -> None:
    """All of them, even where one is called meanwhile and raises."""
    if handlers:
        (number, handler), *others = handlers
        try:
            signal.signal(number, handler)
        finally:
            _restore(others)
