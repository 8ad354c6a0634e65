"""The stretch of time that a timeline shows, and how it moves. Pure; nanoseconds since the run began."""

from __future__ import annotations

import re
from typing import NamedTuple

from specscope.viewer.drawing.timeline.flow import FlowItem, TurnFlow

#: Tokens that are shown around the one that is looked at.
AROUND = 14
LEAST_NS = 20_000
ZOOM = 0.5
PAN = 0.4
#: As links have it, in microseconds after the turn's first piece of work.
_WORDS = re.compile(r"(\d{1,10})-(\d{1,10})", re.ASCII)


class Window(NamedTuple):
    """From one time to a later one."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How long it is."""
        return self.end - self.start

    def moved(self, by: float, flow: TurnFlow) -> Window:
        """By that share of its length; no further than to an end of the turn."""
        shift = round(by * self.length)
        shift = max(flow.start - self.start, min(shift, flow.end - self.end))
        return Window(self.start + shift, self.end + shift)

    def zoomed(self, factor: float, flow: TurnFlow) -> Window:
        """``factor`` times as long about its middle, within the turn."""
        return _around((self.start + self.end) // 2, round(self.length * factor), flow)

    def words(self, flow: TurnFlow) -> str:
        """As ``parse_window`` reads it."""
        return f"{(self.start - flow.start) // 1000}-{-(-(self.end - flow.start) // 1000)}"


def whole(flow: TurnFlow) -> Window:
    """All of the turn."""
    return Window(flow.start, max(flow.end, flow.start + LEAST_NS))


def parse_window(words: str | None, flow: TurnFlow) -> Window | None:
    """What a link says; None where it says nothing, or nothing of this turn."""
    numbers = _WORDS.fullmatch(words or "")
    if numbers is None:
        return None
    start, end = (flow.start + 1000 * int(number) for number in numbers.groups())
    if start >= min(end, flow.end):
        return None
    return _around((start + end) // 2, end - start, flow)


def around(item: FlowItem, flow: TurnFlow) -> Window:
    """The token with those before and after it."""
    near = flow.items[max(0, item.number - AROUND) : item.number + AROUND + 1]
    return Window(near[0].start, max(other.end for other in near))


def shows(window: Window, item: FlowItem) -> bool:
    """Whether all of the token is in sight."""
    return window.start <= item.start and item.end <= window.end


def _around(middle: int, length: int, flow: TurnFlow) -> Window:
    all_of_it = whole(flow)
    length = max(LEAST_NS, min(length, all_of_it.length))
    start = max(all_of_it.start, min(middle - length // 2, all_of_it.end - length))
    return Window(start, start + length)
