"""Who takes which row when: every request once, in the order of arrival, and no row is free while somebody waits."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from support.clocks import Time

from specscope.engine.run.clocks import Clock, SecondsClock, StepClock
from specscope.engine.run.prompts import Times
from specscope.engine.run.schedule import Cancel, Drop, Join, RowSchedule


class Stay(NamedTuple):
    """What became of a request in a simulated run."""

    joined_at: int
    left_at: int


class Rows:
    """Plays a run whose requests each last a number of steps, and holds the moves against rows of its own."""

    def __init__(self, times: list[Times], lasting: list[int], max_rows: int) -> None:
        self.times, self.lasting, self.max_rows = times, lasting, max_rows
        self.clock: Clock = StepClock()
        self.schedule = RowSchedule(times, max_rows, self.clock)
        self.rows: list[int] = []
        self.left: dict[int, int] = {}  # steps that are left of each request that joined
        self.stays: dict[int, Stay] = {}
        self.joined: dict[int, int] = {}
        self.cancelled: dict[int, int] = {}  # by request, when
        self.num_steps = 0

    def play(self) -> None:
        """The whole run."""
        while not self.schedule.is_over:
            while moves := self.schedule.moves():
                self._moved(moves)
            if self.rows:
                self._step()

    def _moved(self, moves: list[Cancel | Join | Drop]) -> None:
        """Carries out moves; some of those who join end at once."""
        assert not (any(isinstance(m, Drop) for m in moves) and any(isinstance(m, Join) and m.is_added for m in moves))
        again = []
        for move in moves:
            if isinstance(move, Cancel):
                self._cancelled(move)
                continue
            if isinstance(move, Drop):
                assert self.rows[move.row] not in self.left, "a row is dropped where somebody runs"
                last = self.rows.pop()
                if move.row < len(self.rows):
                    self.rows[move.row] = last
                continue
            assert move.is_added == (move.row == len(self.rows))
            assert move.is_added or self.rows[move.row] not in self.left
            self.rows[move.row : move.row + 1] = [move.request]
            assert move.request not in self.joined, "a request joins once"
            self.joined[move.request] = self.clock.steps
            self.left[move.request] = self.lasting[move.request]
            if not self.left[move.request]:
                again.append(move.request)
        for request in again:
            self._leave(request)
            self.schedule.end(request)

    def _cancelled(self, cancel: Cancel) -> None:
        self.cancelled[cancel.request] = self.clock.steps
        if cancel.row is not None:
            assert self.rows[cancel.row] == cancel.request
            self._leave(cancel.request)

    def _step(self) -> None:
        assert len(self.rows) <= self.max_rows
        assert list(self.schedule.rows) == self.rows, "no row is free in a step"
        self.num_steps += 1
        self.schedule.advance()
        for request in self.rows:
            self.left[request] -= 1
        for request in [request for request in self.rows if not self.left[request]]:
            self._leave(request)
            self.schedule.end(request)

    def _leave(self, request: int) -> None:
        self.stays[request] = Stay(self.joined[request], self.clock.steps)
        del self.left[request]


@st.composite
def runs(draw: st.DrawFn) -> Rows:
    times, lasting = [], []
    for _ in range(draw(st.integers(1, 9))):
        arrives_at = draw(st.integers(0, 12))
        waits = draw(st.none() | st.integers(1, 8))
        times.append(Times(arrives_at, None if waits is None else arrives_at + waits))
        lasting.append(draw(st.integers(0, 6)))
    return Rows(times, lasting, draw(st.integers(1, 4)))


@given(runs())
def test_every_request_has_its_row_in_turn(run: Rows) -> None:
    run.play()
    requests = range(len(run.times))
    assert run.stays.keys() | run.cancelled.keys() == set(requests)
    for request, stay in run.stays.items():
        when = run.times[request]
        assert stay.joined_at >= when.arrives_at
        full = stay.joined_at + run.lasting[request]
        assert stay.left_at == (full if when.cancel_at is None else min(full, max(when.cancel_at, stay.joined_at)))
    order = sorted(requests, key=lambda request: run.times[request].arrives_at)
    joined = [run.joined[request] for request in order if request in run.joined]
    assert joined == sorted(joined), "first come, first served"


@given(runs())
def test_nobody_waits_while_a_row_is_free(run: Rows) -> None:
    run.play()
    for request in range(len(run.times)):
        begun = run.joined.get(request, run.cancelled.get(request))
        assert begun is not None
        for clock in range(int(run.times[request].arrives_at), begun):
            beside = sum(stay.joined_at <= clock < stay.left_at for stay in run.stays.values())
            assert beside == run.max_rows


def test_the_clock_goes_on_to_the_next_arrival_where_nobody_is_there() -> None:
    clock = StepClock()
    schedule = RowSchedule([Times(7), Times(7)], 1, clock)
    assert schedule.moves() == [Join(0, 0, is_added=True)]
    assert clock.steps == 7
    schedule.end(0)
    assert schedule.moves() == [Join(1, 0, is_added=False)]


def test_a_row_that_nobody_takes_is_dropped_and_a_later_one_added() -> None:
    schedule = RowSchedule([Times(), Times(), Times(2)], 2, StepClock())
    assert schedule.moves() == [Join(0, 0, is_added=True), Join(1, 1, is_added=True)]
    schedule.advance()
    schedule.end(0)
    assert schedule.moves() == [Drop(0)]
    schedule.advance()
    assert schedule.moves() == [Join(2, 1, is_added=True)]
    assert schedule.rows == [1, 2]


def test_who_waits_in_vain_is_cancelled_without_a_row() -> None:
    schedule = RowSchedule([Times(), Times(0, cancel_at=2), Times(0, cancel_at=3)], 1, StepClock())
    assert schedule.moves() == [Join(0, 0, is_added=True)]
    schedule.advance()
    assert schedule.moves() == []
    schedule.advance()
    assert schedule.moves() == [Cancel(1, None)]
    schedule.end(0)
    assert schedule.moves() == [Join(2, 0, is_added=False)]
    schedule.advance()
    assert schedule.moves() == [Cancel(2, 0), Drop(0)]
    assert schedule.is_over


# A clock in seconds.


@given(runs(), st.integers(1, 4))
def test_seconds_in_which_each_step_takes_a_second_give_the_schedule_of_steps(run: Rows, per_step: int) -> None:
    """Steps that take n seconds, and times n times as late: who joins when is the same, counted in busy steps."""
    time = Time()
    scaled = [
        Times(when.arrives_at * per_step, None if when.cancel_at is None else when.cancel_at * per_step)
        for when in run.times
    ]
    other = Rows(scaled, run.lasting, run.max_rows)
    other.clock = time.clock(per_step)
    other.schedule = RowSchedule(scaled, run.max_rows, other.clock)
    run.play()
    other.play()
    assert list(other.joined) == list(run.joined)
    assert other.cancelled.keys() == run.cancelled.keys()
    assert other.num_steps == run.num_steps == other.clock.steps
    lasted = [{request: stay.left_at - stay.joined_at for request, stay in each.stays.items()} for each in (run, other)]
    assert lasted[0] == lasted[1]


def test_where_nobody_runs_the_clock_in_seconds_sleeps_until_the_next_arrival() -> None:
    time = Time()
    clock = time.clock()
    schedule = RowSchedule([Times(0.5), Times(7.25), Times(8)], 1, clock)
    assert schedule.moves() == [Join(0, 0, is_added=True)]
    assert (time.slept, clock.steps, schedule.arrived_at) == ([0.5], 0, {0: 0})
    time.now += 2
    schedule.advance()
    schedule.end(0)
    assert schedule.moves() == [Join(1, 0, is_added=False)]
    assert (time.slept, clock.steps, schedule.arrived_at) == ([0.5, 4.75], 1, {0: 0, 1: 1})
    # A step takes longer than until the next one arrives, who has waited since.
    time.now += 3
    schedule.advance()
    schedule.end(1)
    assert schedule.moves() == [Join(2, 0, is_added=False)]
    assert time.slept == [0.5, 4.75]


def test_who_came_and_was_cancelled_within_one_step_takes_no_row() -> None:
    time = Time()
    schedule = RowSchedule([Times(0), Times(1, cancel_at=2), Times(1.5)], 2, time.clock())
    assert schedule.moves() == [Join(0, 0, is_added=True)]
    time.now += 3
    schedule.advance()
    assert schedule.moves() == [Cancel(1, None), Join(2, 1, is_added=True)]


def test_who_is_cancelled_while_prompts_are_taken_in_takes_no_row() -> None:
    """Nobody steps: each request ends with its first token, and taking it in takes a second."""
    time = Time()
    schedule = RowSchedule([Times(0), Times(0), Times(0, cancel_at=1.5), Times(0.5)], 1, time.clock())
    seen = []
    while moves := schedule.moves():
        seen += moves
        time.now += 1
        for move in moves:
            if isinstance(move, Join):
                schedule.end(move.request)
    first, second, third = (Join(request, 0, is_added=request == 0) for request in (0, 1, 3))
    assert seen == [first, second, Cancel(2, None), third, Drop(0)]
    assert schedule.waited == {0: 0, 1: 1, 3: 1.5}


def test_who_is_cancelled_while_the_clock_sleeps_takes_no_row() -> None:
    """A sleep ends later than was asked for."""
    time = Time()
    clock = SecondsClock(lambda: time.now, lambda seconds: time.sleep(seconds + 1))
    schedule = RowSchedule([Times(2, cancel_at=2.5), Times(2.75), Times(9, cancel_at=10)], 1, clock)
    assert schedule.moves() == [Cancel(0, None), Join(1, 0, is_added=True)]
    schedule.end(1)
    assert schedule.moves() == [Cancel(2, None), Drop(0)]
    assert schedule.is_over


def test_a_cancel_is_told_before_the_next_request_is_waited_for() -> None:
    time = Time()
    schedule = RowSchedule([Times(0, cancel_at=1), Times(9)], 1, time.clock())
    assert schedule.moves() == [Join(0, 0, is_added=True)]
    time.now += 2
    schedule.advance()
    assert (schedule.moves(), time.slept) == ([Cancel(0, 0)], [])
    assert (schedule.moves(), time.slept) == ([Join(1, 0, is_added=False)], [7])


def test_a_sleep_that_ends_early_is_followed_by_another() -> None:
    time = Time()
    clock = SecondsClock(lambda: time.now, lambda seconds: time.sleep(min(seconds, 2)))
    clock.wait_until(5)
    assert (time.slept, clock.now()) == ([2, 2, 1], 5)
    clock.wait_until(3)
    assert time.slept == [2, 2, 1]
