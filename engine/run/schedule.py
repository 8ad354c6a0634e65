"""Continuous batching: which request takes which row before each step. Knows no model.

Requests arrive at times of a clock, which is looked at whenever rows may change: after each step, and again after
prompts were taken in. Who is cancelled by then leaves before anybody takes a row. A request waits until a row is free,
in the order of arrival; while there are fewer rows than may run side by side, it gets a new one. A row that nobody
takes is dropped, and the last row takes its number, so that no step runs over an empty row. Where nobody runs and
nobody waits, the clock goes on to the next arrival.

Everything follows from the times, the clock and when requests are over: where the clock counts steps, the same file
gives the same schedule again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from specscope.engine.cache.rows import RowList
from specscope.engine.run.clocks import Clock
from specscope.engine.run.prompts import Times


class Join(NamedTuple):
    """A request takes a row."""

    request: int  # its number
    row: int
    is_added: bool  # a new row, behind the others; else one that another request has left


class Drop(NamedTuple):
    """A row ends, and the last one takes its number."""

    row: int


class Cancel(NamedTuple):
    """A request is withdrawn."""

    request: int
    row: int | None  # None: it still waited for one


class RowSchedule:
    """The rows of a run and who waits for one.

    Args:
        times: of each request, by its number. Who arrives at the same time waits in the order of the numbers.
        max_rows: rows side by side at most.
        clock: what the times are counted by.

    Attributes:
        rows: of each row, its request; None where that is over.
        arrived_at: of each request that has arrived, the steps that had been taken by then.
        waited: of each request that took a row, the time from its arrival until then, in the clock's unit. Those that
            take rows at once wait no longer for one another's prompts to be taken in.
    """

    def __init__(self, times: Sequence[Times], max_rows: int, clock: Clock) -> None:
        self.rows: RowList[int | None] = RowList()
        self.arrived_at: dict[int, int] = {}
        self.waited: dict[int, float] = {}
        self._clock = clock
        self._now = clock.now()
        self._times = times
        self._max_rows = max_rows
        self._coming = deque(sorted(range(len(times)), key=lambda request: times[request].arrives_at))
        self._waiting: deque[int] = deque()

    @property
    def is_over(self) -> bool:
        """Whether every request is over."""
        return not (self._coming or self._waiting or any(request is not None for request in self.rows))

    def advance(self) -> None:
        """The rows have taken a step."""
        self._clock.advance()

    def end(self, request: int) -> None:
        """``request`` is over, and its row free."""
        self.rows[self.rows.index(request)] = None

    def is_cancelled(self, request: int) -> bool:
        """Whether nobody wants ``request`` any more, by the clock's time now."""
        self._now = self._clock.now()
        return self._is_due(request)

    def moves(self) -> list[Cancel | Join | Drop]:
        """What happens to the rows now, in order. To be asked again until nothing does: prompts that are taken in pass
        time, and a turn may end with its first token.

        Who is cancelled leaves first. Then free rows are taken, from the first on; what is left of them is dropped,
        from the last on; then rows are added. So rows are never dropped and added at one time.
        """
        moves: list[Cancel | Join | Drop] = [*self._look()]
        while not moves and self._is_idle:
            self._clock.wait_until(self._times[self._coming[0]].arrives_at)
            moves += self._look()
        if self._is_idle:
            return moves  # told before the next request is waited for, who takes the row that is left
        for row, request in enumerate(self.rows):
            if request is None and self._waiting:
                moves.append(self._join(row, is_added=False))
        for row in reversed(range(len(self.rows))):
            if self.rows[row] is None:
                moves.append(Drop(row))
                self.rows.drop_row(row)
        while self._waiting and len(self.rows) < self._max_rows:
            self.rows.append(None)
            moves.append(self._join(len(self.rows) - 1, is_added=True))
        return moves

    @property
    def _is_idle(self) -> bool:
        """Whether nobody runs and nobody waits, and somebody is still to come."""
        return bool(self._coming) and not self._waiting and all(request is None for request in self.rows)

    def _look(self) -> list[Cancel]:
        """Looks at the clock: who has come waits, and who is cancelled leaves, the row free from then on."""
        self._now = self._clock.now()
        self._let_arrive()  # who came and was cancelled since the last look takes no row
        due = [Cancel(request, None) for request in self._waiting if self._is_due(request)]
        self._waiting = deque(request for request in self._waiting if not self._is_due(request))
        for row, request in enumerate(self.rows):
            if request is not None and self._is_due(request):
                due.append(Cancel(request, row))
                self.rows[row] = None
        return due

    def _is_due(self, request: int) -> bool:
        cancel_at = self._times[request].cancel_at
        return cancel_at is not None and cancel_at <= self._now

    def _let_arrive(self) -> None:
        while self._coming and self._times[self._coming[0]].arrives_at <= self._now:
            request = self._coming.popleft()
            self.arrived_at[request] = self._clock.steps
            self._waiting.append(request)

    def _join(self, row: int, *, is_added: bool) -> Join:
        request = self.rows[row] = self._waiting.popleft()
        self.waited[request] = self._now - self._times[request].arrives_at
        return Join(request, row, is_added)
