"""Messages from one process to another, over a group of ``torch.distributed``.

Sending returns at once: a sender owns a few buffers and waits for one only before it fills it again. Receiving goes on
beside the work, in a thread for each sender: what has arrived is found in one inbox. Nothing here knows the schedule.

Rows that travel apart, from device to device, are received as soon as their header is there, whether their item will be
run or dropped: the carrier matches what one rank sends with what the other receives by order alone. Rows flow from each
stage to the next only, and what the last stage says has none, so that no two ranks wait for each other's rows.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist

from specscope.engine.ppsd.message import Kind, Message, Shape
from specscope.engine.ranks.leaving import RankLostError

NUM_BUFFERS = 4  # per direction: one is filled, one travels, and what is slow may lag
LISTEN_S = 0.25  # between two looks at signals and at the parent while nothing arrives
LAST_WORD_S = 0.01  # between two looks while only last words are awaited
NUM_PINGS = 24
MESSAGE_TAG, ROWS_TAG = 0, 1  # on a carrier of both, a buffer that waits for a message is no place for rows


class StageLostError(RankLostError):
    """The connection to another stage broke, or it does not answer."""


class Arrival(NamedTuple):
    """A message, and where it came from. Give its buffer back when it is read."""

    message: Message
    received_ns: int
    source: int


class Sender:
    """What one rank sends to another."""

    def __init__(self, target: int, shape: Shape, dtype: torch.dtype) -> None:
        self.target = target
        self._buffers = [Message(shape, dtype) for _ in range(NUM_BUFFERS)]
        self._underway: list[list[dist.Work]] = [[] for _ in range(NUM_BUFFERS)]
        self._next = 0

    def free(self) -> Message:
        """A buffer that may be filled: what it held before has been sent.

        Raises:
            StageLostError: where it could not be.
        """
        self._await(self._next)
        return self._buffers[self._next]

    def send(self, message: Message) -> None:
        """Sends what ``free`` gave.

        Raises:
            StageLostError: where the other rank is gone.
        """
        assert message is self._buffers[self._next], "only the buffer that free() gave"
        with _losing(self.target):
            for tag, part in ((MESSAGE_TAG, message.content()), (ROWS_TAG, message.rows_apart())):
                if part is not None:
                    work = dist.isend(part, self.target, tag=tag)
                    assert work is not None, "this rank is in the group"
                    self._underway[self._next].append(work)
        self._next = (self._next + 1) % NUM_BUFFERS

    def drain(self) -> None:
        """Waits until all has been sent."""
        for number in range(NUM_BUFFERS):
            self._await(number)

    def _await(self, number: int) -> None:
        """Until what that buffer held has been sent. A device's carrier makes what is put there next wait instead."""
        works, self._underway[number] = self._underway[number], []
        for work in works:
            with _losing(self.target):
                work.wait()


class Inbox:
    """What arrives at one rank, from all its senders, in the order of arrival."""

    def __init__(self, sources: dict[int, Shape], dtype: torch.dtype) -> None:
        self._arrived: queue.SimpleQueue[Arrival | StageLostError] = queue.SimpleQueue()
        self._free: dict[int, queue.SimpleQueue[Message]] = {}
        self._listening: list[threading.Thread] = []
        for source, shape in sources.items():
            self._free[source] = queue.SimpleQueue()
            for _ in range(NUM_BUFFERS):
                self._free[source].put(Message(shape, dtype))
            listening = threading.Thread(target=self._listen, args=(source,), name=f"from {source}", daemon=True)
            self._listening.append(listening)
            listening.start()

    def take(self, timeout_s: float) -> Arrival | None:
        """The next message; None where none comes in time.

        Raises:
            StageLostError: where a sender is gone.
        """
        if not timeout_s:
            # What arrives is read by threads of the same core, which a scheduler may leave waiting for milliseconds.
            os.sched_yield()
        try:
            arrival = self._arrived.get(timeout=timeout_s) if timeout_s else self._arrived.get_nowait()
        except queue.Empty:
            return None
        if isinstance(arrival, StageLostError):
            raise arrival
        return arrival

    def give_back(self, arrival: Arrival) -> None:
        """Its buffer may be written again."""
        self._free[arrival.source].put(arrival.message)

    def hear_out(self, idle: Callable[[], None]) -> None:
        """Waits until every sender has said its last word, and drops what arrives meanwhile: a rank that left earlier
        would cut off a sender that is still sending to it. ``idle`` is called while nothing arrives.

        Raises:
            StageLostError: where a sender is gone before it said it.
        """
        for listening in self._listening:
            while listening.is_alive():
                idle()
                arrival = self.take(0.0)
                if arrival is None:
                    listening.join(LAST_WORD_S)
                else:
                    self.give_back(arrival)

    def _listen(self, source: int) -> None:
        # Every free buffer waits for a message: what finds none waiting travels only after a reply to its sender, whose
        # one core may be in the middle of a stage's work. On this carrier messages fill buffers in the order they wait.
        free, awaited = self._free[source], deque[_Awaited]()
        while True:
            try:
                while not awaited or not free.empty():
                    message = free.get()
                    awaited.append(_Awaited(message, _begin_to_receive(message.buffer, source, MESSAGE_TAG)))
                message, wait = awaited.popleft()
                wait()
                rows = message.rows_apart()
                if rows is not None:
                    with beside_the_work(rows.device):
                        _begin_to_receive(rows, source, ROWS_TAG)()
            except (RuntimeError, ValueError) as error:
                self._arrived.put(StageLostError(_lost(source, error)))
                return
            self._arrived.put(Arrival(message, time.monotonic_ns(), source))
            if message.kind in (Kind.STOP, Kind.LEAVE):
                return


class _Awaited(NamedTuple):
    """A buffer that a message will come into."""

    message: Message
    wait: Callable[[], object]  # until it is there


def _begin_to_receive(buffer: torch.Tensor, source: int, tag: int) -> Callable[[], object]:
    """What waits until it is received. If the connection is lost by now, that says so, and not before: what arrived
    earlier is heard first."""
    try:
        work = dist.irecv(buffer, source, tag=tag)
    except (RuntimeError, ValueError) as error:
        lost = error

        def wait() -> None:
            raise lost

        return wait
    assert work is not None, "this rank is in the group"
    return work.wait


@contextmanager
def beside_the_work(device: torch.device) -> Iterator[None]:
    """Inside, this thread has its own stream of ``device``, and at the end what was put there is done: what
    arrives waits for none of the stage's work, and the stage does not wait in vain for what arrives."""
    if device.type == "cpu":
        yield
        return
    with torch.Stream(device) as stream:
        yield
    stream.synchronize()


@contextmanager
def _losing(rank: int) -> Iterator[None]:
    """Turns what torch raises about a broken connection into our error."""
    try:
        yield
    except RuntimeError as error:
        raise StageLostError(_lost(rank, error)) from None


def _lost(rank: int, error: Exception) -> str:
    reason = str(error).rpartition("] ")[2].partition(". ")[0]
    return f"lost the connection to rank {rank} ({reason or type(error).__name__})"


class ClockOffset(NamedTuple):
    """How another rank's clock stands to ours, and what a hop to it costs."""

    offset_ns: int  # its clock less ours
    uncertainty_ns: int
    hop_ns: int  # one way, the fastest of all that were tried


def measure_offset(rank: int) -> ClockOffset:
    """Asks ``rank``, which must be in ``answer_pings``, for its clock: the fastest answer counts, and half its round
    trip is the uncertainty."""
    ours, theirs, best = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), None
    for _ in range(NUM_PINGS):
        begun = time.monotonic_ns()
        dist.send(ours, rank)
        dist.recv(theirs, rank)
        ended = time.monotonic_ns()
        if best is None or ended - begun < 2 * best.hop_ns:
            half = (ended - begun) // 2
            best = ClockOffset(offset_ns=int(theirs[0]) - begun - half, uncertainty_ns=half, hop_ns=half)
    assert best is not None
    return best


def answer_pings(rank: int = 0) -> None:
    """Answers ``measure_offset`` of ``rank``."""
    asked, clock = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for _ in range(NUM_PINGS):
        dist.recv(asked, rank)
        clock[0] = time.monotonic_ns()
        dist.send(clock, rank)
