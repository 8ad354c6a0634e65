"""The schedule of the pipeline as pure state machines: no torch, no processes, no clock.

``PipelineSchedule`` belongs to the first stage. It says which token that stage runs next, takes the drafts of the exit
head and the verified tokens of the last stage, and decides what becomes of them. ``Gate`` belongs to every stage. It
says which work is run, to which length the stage's keys and values are cut first, and which work is dropped unread.

Verify while draft: the item of a position runs through all stages, and each stage takes the next position as soon as it
is free. What comes out at the end is the token that truly follows. Where the draft was another, the epoch rises: every
item of an older epoch is dropped, and the true token enters at the same position.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

from specscope.tracer.errors import EngineError

DropReason = Literal["stale epoch", "refuted", "turn over"]


class ScheduleError(EngineError):
    """The stages do not keep to the schedule: a defect, never the user's mistake."""


class Item(NamedTuple):
    """One token on its way through the stages."""

    position: int  # of the token in the text
    token: int
    epoch: int


@dataclass
class _InFlight:
    item: Item
    draft: int | None = None  # of the token after it; None where nothing was drafted


class Verdict(NamedTuple):
    """What became of one draft."""

    position: int  # of the item that was run; the token is for the position after it
    epoch: int  # in which it was run
    token: int  # the verified one
    draft: int | None
    dropped: list[Item]  # what was in flight after it, where the draft was refuted

    @property
    def accepted(self) -> bool:
        """Whether the draft is what the teacher says."""
        return self.draft == self.token

    @property
    def refuted(self) -> bool:
        """Whether the draft is something else."""
        return self.draft is not None and self.draft != self.token


class PipelineSchedule:
    """What the first stage runs, and what of it counts.

    Args:
        window: items in flight at most. With one per stage no item waits for another: the first stage is free when
            a refutation arrives, at the price of one hop of idleness per token.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError(f"got a window of {window}, wanted at least 1")
        self.window = window
        self.epoch = 0
        self._in_flight: deque[_InFlight] = deque()
        self._ready: Item | None = None
        self._last_position = 0

    @property
    def num_in_flight(self) -> int:
        """Items between the first stage's input and the last stage's output."""
        return len(self._in_flight)

    @property
    def oldest(self) -> Item | None:
        """The item that comes out next."""
        return self._in_flight[0].item if self._in_flight else None

    @property
    def newest(self) -> Item | None:
        """The item that the first stage took last, unless it is of no use by now."""
        return self._in_flight[-1].item if self._in_flight else None

    def begin_turn(self, last_prompt: Item, last_position: int) -> Item:
        """The item of the prompt's last token, in a new epoch: everything of the turn before is stale.

        ``last_position`` is the last one whose item can matter: nothing after it is run.
        """
        self.epoch += 1
        item = last_prompt._replace(epoch=self.epoch)
        self._in_flight = deque([_InFlight(item)])
        self._ready, self._last_position = None, last_position
        return item

    def end_turn(self) -> list[Item]:
        """Drops all that is in flight, and names it."""
        dropped = [flying.item for flying in self._in_flight]
        self.epoch += 1
        self._in_flight.clear()
        self._ready = None
        return dropped

    def drafted(self, item: Item, token: int) -> None:
        """The exit head's ``token`` for the position after ``item``, which has just passed the first stage."""
        if not self._in_flight or self._in_flight[-1].item != item:
            raise ScheduleError(f"a draft after position {item.position}, which is not the last item in flight")
        self._in_flight[-1].draft = token
        self._make_ready(item.position + 1, token)

    def take(self) -> Item | None:
        """The item that the first stage runs next; None where it has to wait for the last one."""
        item = self._ready
        if item is None or len(self._in_flight) >= self.window:
            return None
        self._in_flight.append(_InFlight(item))
        self._ready = None
        return item

    def verified(self, position: int, epoch: int, token: int) -> Verdict | None:
        """The last stage's ``token`` for the position after ``position``; None of an older epoch's, which counts for
        nothing.

        Raises:
            ScheduleError: where another item was to come out first.
        """
        if epoch < self.epoch:
            return None
        if not self._in_flight or self._in_flight[0].item[::2] != (position, epoch):
            raise ScheduleError(f"position {position} of epoch {epoch} came out of turn: the stages are not in order")
        draft = self._in_flight.popleft().draft
        dropped: list[Item] = []
        if draft != token:
            dropped = [flying.item for flying in self._in_flight]
            self._in_flight.clear()
            self.epoch += draft is not None
            self._make_ready(position + 1, token)
        return Verdict(position, epoch, token=token, draft=draft, dropped=dropped)

    def _make_ready(self, position: int, token: int) -> None:
        self._ready = Item(position, token, self.epoch) if position <= self._last_position else None


class Admission(NamedTuple):
    """What a stage does with an item."""

    drop: DropReason | None  # None: run it
    cut: int | None = None  # cut keys and values to this length first; None: nothing is to be cut


class Gate:
    """What one stage may run. Its keys and values are those of positions 0..length - 1, left by items of ``epoch``."""

    def __init__(self) -> None:
        self.epoch = 0
        self.length = 0
        self._oldest = 0  # epoch that is still of use
        self._expected: Item | None = None

    def expect(self, item: Item) -> None:
        """Only the last stage knows: the item that must follow if the draft was right."""
        self._expected = item

    def heard_of(self, epoch: int) -> None:
        """The first stage says that ``epoch`` began: whatever is older is of no use."""
        self._oldest = max(self._oldest, epoch)

    def admit(self, item: Item, num_rows: int = 1) -> Admission:
        """Whether to run ``num_rows`` positions that begin with ``item``.

        Raises:
            ScheduleError: where it does not follow what was run before.
        """
        if item.epoch < self._oldest:
            return Admission("stale epoch")
        if self._is_refuted(item):
            self._oldest = item.epoch + 1
            return Admission("refuted")
        begins_epoch = item.epoch > self.epoch
        if item.position > self.length or (item.position < self.length and not begins_epoch):
            raise ScheduleError(
                f"got position {item.position} of epoch {item.epoch}, wanted {self.length}: the stages are not in order"
            )
        cut = item.position if item.position < self.length else None
        self._oldest = self.epoch = item.epoch
        self.length = item.position + num_rows
        return Admission(None, cut)

    def _is_refuted(self, item: Item) -> bool:
        expected = self._expected
        return expected is not None and item[::2] == expected[::2] and item.token != expected.token
