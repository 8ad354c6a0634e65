"""A pipeline of threads in one process: the stages of ``engine.ppsd`` with queues in place of the process group."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from specscope.engine.lab.faults.pipeline import PipelineFault, RankParts
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd.carrier import Carrier
from specscope.engine.ppsd.conductor import Conductor, ConductorLinks, ExitDraft, PipelineRequest
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.hop import Arrival, Inbox, Sender, StageLostError
from specscope.engine.ppsd.message import Message, Shape
from specscope.engine.ppsd.outcome import PipelineObserver, PipelineTurn
from specscope.engine.ppsd.pace import Pace
from specscope.engine.ppsd.rank import NEWS_SHAPE, message_shapes
from specscope.engine.ppsd.stage import Stage
from specscope.engine.ppsd.verifier import Verifier
from specscope.engine.ppsd.worker import Links, Worker
from specscope.engine.ranks.group import HOST_CARRIER
from specscope.engine.settings import GREEDY, SamplingRule


class LocalInbox(Inbox):
    """An inbox that threads put messages into."""

    def __init__(self) -> None:
        self.arrived: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    def take(self, timeout_s: float) -> Arrival | None:
        """As a process's inbox does."""
        try:
            return self.arrived.get(timeout=timeout_s) if timeout_s else self.arrived.get_nowait()
        except queue.Empty:
            return None

    def give_back(self, arrival: Arrival) -> None:
        """Nothing: each message is a copy."""

    def hear_out(self, idle: Callable[[], None]) -> None:
        """Nothing: no thread is cut off by another's end."""


class FirstInbox(LocalInbox):
    """That of the first stage, where a fault is put in: without waiting it finds nothing.

    So the first stage runs ahead as far as its window allows before it hears a word, on every machine and under every
    load: a fault of what is in flight always finds something in flight.
    """

    def take(self, timeout_s: float) -> Arrival | None:
        """As another inbox does, where it may wait."""
        return super().take(timeout_s) if timeout_s else None


class LocalSender(Sender):
    """Sends a copy of what it is given: the buffer may be filled again at once."""

    def __init__(self, source: int, inbox: LocalInbox, shape: Shape) -> None:
        self._source, self._inbox, self._shape = source, inbox, shape
        self._buffer = Message(shape, torch.float32)

    def free(self) -> Message:
        """The one buffer, always free."""
        return self._buffer

    def send(self, message: Message) -> None:
        """Puts a copy into the receiver's inbox."""
        copy = Message(self._shape, torch.float32)
        copy.buffer.copy_(message.buffer)
        self._inbox.arrived.put(Arrival(copy, time.monotonic_ns(), self._source))

    def drain(self) -> None:
        """Nothing is on its way."""


class LocalPipeline:
    """The first stage's conductor; the others serve in threads."""

    def __init__(self, conductor: Conductor, workers: list[Worker]) -> None:
        self.conductor = conductor
        self.workers = workers

    def decode(
        self,
        prompt_ids: list[int],
        rules: StopRules,
        *,
        seed: int | None = None,
        observer: PipelineObserver | None = None,
    ) -> PipelineTurn:
        """One turn."""
        request = PipelineRequest(prompt_ids, rules, observer=observer, generator_seed=seed)
        return self.conductor.decode(request, lambda _: None)


@contextmanager
def local_pipeline(
    stages: list[Stage],
    draft: ExitDraft | None,
    *,
    rule: SamplingRule = GREEDY,
    window: int | None = None,
    recording: bool = False,
    fault: PipelineFault | None = None,
    decode_text: Callable[[list[int]], str] = str,
) -> Iterator[LocalPipeline]:
    """A running pipeline of ``stages``; its threads have ended when the block has."""
    count = len(stages)
    shape, _ = message_shapes(stages[0], Carrier(HOST_CARRIER), num_stages=count, recording=recording)
    inboxes = [LocalInbox() if fault is None else FirstInbox(), *(LocalInbox() for _ in stages[1:])]
    workers = []
    for number in range(1, count):
        last = number == count - 1
        links = Links(inboxes[number], LocalSender(number, inboxes[0 if last else number + 1], shape))
        verify = Verifier(rule, recording=recording) if last else None
        log = EventLog(number, recording=recording)
        workers.append(Worker(stages[number], links, log, verify=verify, idle=lambda: None))
    first = ConductorLinks(
        inbox=inboxes[0],
        following=LocalSender(0, inboxes[1], shape),
        news=[LocalSender(0, inboxes[number], NEWS_SHAPE) for number in range(2, count)],
    )
    conductor = Conductor(
        stages[0],
        first,
        EventLog(0, recording=recording),
        pace=Pace(count if window is None else window, adapts=False),
        exit_draft=draft,
        decode_text=decode_text,
        idle=lambda: None,
        patience_s=30.0,
    )
    every: list[Conductor | Worker] = [conductor, *workers]
    for number, serves in enumerate(every):
        if fault is not None:
            fault.spoil(RankParts(rank=number, num_stages=count, serves=serves))
    threads = [threading.Thread(target=worker.serve, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield LocalPipeline(conductor, workers)
    finally:
        conductor.stop()
        for thread in threads:
            thread.join(30)
    if any(thread.is_alive() for thread in threads):
        raise StageLostError("a stage did not end within 30 s")
