"""What a stage did and when, until a message takes it along to the first stage."""

from __future__ import annotations

import time

from specscope.engine.ppsd.message import Event, EventKind, Field, Message
from specscope.engine.ppsd.schedule import DropReason, Item

#: Numbers of the reasons in an event.
DROP_REASONS: tuple[DropReason, ...] = ("stale epoch", "refuted", "turn over")


class EventLog:
    """One stage's events. Where nothing is recorded, none are kept.

    Args:
        stage: its number.
        recording: whether anybody reads them.
    """

    def __init__(self, stage: int, *, recording: bool) -> None:
        self._stage = stage
        self._recording = recording
        self._events: list[Event] = []

    def add(self, kind: EventKind, item: Item, start: int, end: int) -> None:
        """Adds one event of ``item``."""
        if self._recording:
            self._events.append(Event(self._stage, kind, item.position, item.epoch, start=start, end=end))

    def drop(self, item: Item, reason: DropReason) -> None:
        """Adds that ``item`` was dropped."""
        self.add(EventKind.DROP, item, time.monotonic_ns(), DROP_REASONS.index(reason))

    def keep(self, message: Message) -> None:
        """Takes over the log of a message that goes no further."""
        if self._recording:
            self._events += message.events()

    def hand_on(self, message: Message) -> None:
        """Puts as many events as there is room for into ``message``."""
        self._events = message.log(self._events)

    def take(self) -> list[Event]:
        """All events, once."""
        events, self._events = self._events, []
        return events


def item_of(message: Message) -> Item:
    """The item that ``message`` brings."""
    return Item(message.get(Field.POSITION), message.get(Field.TOKEN), message.get(Field.EPOCH))
