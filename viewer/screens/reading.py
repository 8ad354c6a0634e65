"""Reading whole traces while somebody waits: how far it has come, how long it may take, and how fast it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import streamlit as st

Task = Literal["check", "compare"]
#: The words beside the bar.
WORDS: dict[Task, str] = {"check": "Checking every record", "compare": "Comparing the two traces"}
#: A file is read so many times: a comparison checks both before it walks through them.
PASSES: dict[Task, int] = {"check": 1, "compare": 2}
#: Bytes of files per second, until this process has measured it.
FIRST_GUESS: dict[Task, float] = {"check": 10 << 20, "compare": 5 << 20}
#: Smaller files are read too quickly to tell a speed by.
TELLING_BYTES = 1 << 20
#: How often the bar moves. A click elsewhere ends the reading at its next move.
MOVE_SECONDS = 0.25

_measured: dict[Task, float] = {}  # bytes of files per second; all sessions share the machine


def seconds_for(task: Task, num_bytes: int) -> float:
    """About how long ``task`` takes on files of ``num_bytes`` in all, by the last one of this process."""
    return num_bytes / _measured.get(task, FIRST_GUESS[task])


@contextmanager
def reading(task: Task, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while files of ``num_bytes`` in all are read, and takes their speed.

    Gives what is to be called with the bytes of each record, as ``check_trace`` and ``compare_traces`` do.
    """
    whole, done, moved = max(1, PASSES[task] * num_bytes), 0, 0.0
    place = st.empty()
    begun = time.monotonic()

    def watch(more: int) -> None:
        nonlocal done, moved
        done += more
        now = time.monotonic()
        if now - moved >= MOVE_SECONDS:
            moved = now
            share = min(1.0, done / whole)
            place.progress(share, f"{WORDS[task]}: {_left(share, now - begun)}")

    try:
        yield watch
    finally:
        place.empty()
    if num_bytes >= TELLING_BYTES:
        _measured[task] = num_bytes / max(1e-3, time.monotonic() - begun)


def _left(share: float, seconds: float) -> str:
    """How far it has come, and once that tells, how long the rest may take."""
    percent = f"{100 * share:.0f} %"
    return percent if seconds < 1.0 or share <= 0.0 else f"{percent}, about {seconds * (1 - share) / share:.0f} s left"
