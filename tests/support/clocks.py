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

    def clock(self, step_s: float = 0.0) -> SecondsClock:
        """One that begins now, of a run whose steps take so long."""
        return _Paced(self, step_s)


class _Paced(SecondsClock):
    """Time passes while the rows take a step."""

    def __init__(self, time: Time, step_s: float) -> None:
        super().__init__(lambda: time.now, time.sleep)
        self._time, self._step_s = time, step_s

    def advance(self) -> None:
        """The rows have taken a step."""
        self._time.now += self._step_s
        super().advance()
