"""Time that passes only where a test says so."""

from __future__ import annotations

from specscope.engine.run.clocks import SecondsClock


class Time:
    """Seconds, and how long was slept."""

    def __init__(self) -> None:
        self.now = 1000.0  # a clock begins anywhere
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Passes them."""
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> SecondsClock:
        """That begins now."""
        return SecondsClock(lambda: self.now, self.sleep)
