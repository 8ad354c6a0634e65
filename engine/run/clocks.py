"""What the times of requests are counted by: the steps that the rows take together, or seconds.

With steps, a file of arrivals gives the same run again. With seconds it says what load a run was under; when each
request joined then depends on how fast the machine is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

LONGEST_SLEEP_S = 3600.0  # a system may take no longer ones


class Clock(Protocol):
    """Tells a schedule what time it is. Not shared by runs."""

    steps: int  # so far, by which a trace says when rows were taken

    def now(self) -> float:
        """The time, in this clock's unit, since the run began."""

    def advance(self) -> None:
        """The rows have taken a step."""

    def wait_until(self, then: float) -> None:
        """Nobody runs before ``then``; it may have passed."""


class StepClock:
    """Counts steps. Where nobody runs it goes on at once, as if steps were taken."""

    def __init__(self) -> None:
        self.steps = 0

    def now(self) -> float:
        """Steps so far, those that nobody was there for included."""
        return self.steps

    def advance(self) -> None:
        """The rows have taken a step."""
        self.steps += 1

    def wait_until(self, then: float) -> None:
        """Counts the steps that nobody is there for."""
        self.steps = max(self.steps, math.ceil(then))


class SecondsClock:
    """Counts seconds from when it was made. Where nobody runs it sleeps, and no step is counted.

    Args:
        read: seconds from any beginning, never going back.
        sleep: passes so many seconds.
    """

    def __init__(self, read: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self.steps = 0
        self._read, self._sleep = read, sleep
        self._begun = read()

    def now(self) -> float:
        """Seconds since the run began."""
        return self._read() - self._begun

    def advance(self) -> None:
        """The rows have taken a step."""
        self.steps += 1

    def wait_until(self, then: float) -> None:
        """Sleeps; a sleep may end early."""
        while (left := then - self.now()) > 0:
            self._sleep(min(left, LONGEST_SLEEP_S))
