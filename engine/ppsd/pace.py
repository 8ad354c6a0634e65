"""How many tokens to have in flight: many where drafts hold, few where a refuted one would find the stages busy.

A piece of work cannot be broken off. With a token per stage in flight, a stage may be in the middle of one that is of
no use when a refutation arrives, and the true token waits. What that costs and what it gains depends on how often
drafts hold, and on how long a passage through all stages takes next to a beat of the slowest one. All three are
measured while decoding, and the best window follows. Pure: times in any unit.
"""

from __future__ import annotations

WEIGHT = 0.1  # of the newest outcome in the running estimates
FIRST_GUESS = 0.8  # of the acceptance, before anything was verified
AS_GOOD = 1.02
FORGETTING = 1.005  # by which a shortest time grows with each one measured, so that slower times are noticed


class Pace:
    """Running estimates, and the window that follows from them.

    Args:
        most: items in flight at most.
        adapts: False keeps to that number.
    """

    def __init__(self, most: int, *, adapts: bool = True) -> None:
        self.most, self._adapts = most, adapts
        self.acceptance = FIRST_GUESS
        self._beat: float | None = None  # of the first stage, draft included
        self._interval: float | None = None  # between two words of the last stage while drafts hold
        self._passage: float | None = None
        self._last: float | None = None  # when a draft held that was heard of last

    def took(self, beat: float) -> None:
        """What the first stage needed for one token and its draft."""
        self._beat = beat if self._beat is None else self._beat + WEIGHT * (beat - self._beat)

    def heard(self, now: float, passage: float, *, held: bool) -> None:
        """The last stage's word on a draft came in, ``passage`` after its item began."""
        # Words are heard only between two pieces of the first stage's work: the shortest times are nearest the truth.
        self._passage = _shortest(self._passage, passage)
        if held and self._last is not None:
            self._interval = _shortest(self._interval, now - self._last)
        self._last = now if held else None
        self.acceptance += WEIGHT * (held - self.acceptance)

    def window(self) -> int:
        """Items in flight from now on: the number that makes the expected time per token least, or one that is as good
        as that and smaller, because what is in flight in vain may be in the way of what is not."""
        if not self._adapts or self._beat is None or self._passage is None:
            return self.most
        times = {window: self._time_per_token(window) for window in range(1, self.most + 1)}
        return next(window for window, expected in times.items() if expected <= AS_GOOD * min(times.values()))

    def _time_per_token(self, window: int) -> float:
        assert self._beat is not None
        assert self._passage is not None
        passage = self._passage
        if window == 1:
            return passage
        slowest = max(self._beat, self._interval or 0.0)
        # Until when the slowest stage works on what a refutation makes useless; no longer than one piece of work.
        wait = min(max(0.0, window * slowest - passage), slowest)
        return self.acceptance * max(slowest, passage / window) + (1 - self.acceptance) * (passage + wait)


def _shortest(before: float | None, now: float) -> float:
    return now if before is None else min(now, before * FORGETTING)
