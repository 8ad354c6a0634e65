"""Continuous batching: which request takes which row before each step. Knows no model.

Requests arrive at times of a clock, which is looked at after each step. A request waits until a row is free, in the
order of arrival; while there are fewer rows than may run side by side, it gets a new one. A row that nobody takes is
dropped, and the last row takes its number, so that no step runs over an empty row. Where nobody runs and nobody waits,
the clock goes on to the next arrival.

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
    """

    def __init__(self, times: Sequence[Times], max_rows: int, clock: Clock) -> None:
        self.rows: RowList[int | None] = RowList()
        self.arrived_at: dict[int, int] = {}
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
        self._now = self._clock.now()

    def end(self, request: int) -> None:
        """``request`` is over, and its row free."""
        self.rows[self.rows.index(request)] = None

    def cancels(self) -> list[Cancel]:
        """Who is cancelled at this time; their rows are free from then on."""
        self._let_arrive()  # who came and was cancelled within one step takes no row
        due = [Cancel(request, None) for request in self._waiting if self._is_cancelled(request)]
        self._waiting = deque(request for request in self._waiting if not self._is_cancelled(request))
        for row, request in enumerate(self.rows):
            if request is not None and self._is_cancelled(request):
                due.append(Cancel(request, row))
                self.rows[row] = None
        return due

    def _is_cancelled(self, request: int) -> bool:
        cancel_at = self._times[request].cancel_at
        return cancel_at is not None and cancel_at <= self._now

    def moves(self) -> list[Join | Drop]:
        """What happens to the rows now, in order; after it no row is free, and nobody waits who could run.

        Free rows are taken first, from the first on; what is left of them is dropped, from the last on; then rows are
        added. So rows are never dropped and added at one time.
        """
        self._await_arrival()
        moves: list[Join | Drop] = []
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

    def _await_arrival(self) -> None:
        """Where nobody runs and nobody waits, the next request is waited for."""
        nobody_runs = all(request is None for request in self.rows)
        if nobody_runs and not self._waiting and self._coming:
            self._clock.wait_until(self._times[self._coming[0]].arrives_at)
            self._now = self._clock.now()
        self._let_arrive()

    def _let_arrive(self) -> None:
        while self._coming and self._times[self._coming[0]].arrives_at <= self._now:
            request = self._coming.popleft()
            self.arrived_at[request] = self._clock.steps
            self._waiting.append(request)

    def _join(self, row: int, *, is_added: bool) -> Join:
        request = self.rows[row] = self._waiting.popleft()
        return Join(request, row, is_added)
