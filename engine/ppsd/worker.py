"""The ranks after the first: take an item, run it or drop it, hand it on. The last one says what truly follows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from specscope.engine.ppsd.events import EventLog, item_of
from specscope.engine.ppsd.hop import LISTEN_S, Arrival, Inbox, Sender
from specscope.engine.ppsd.message import EventKind, Field, Kind, Message
from specscope.engine.ppsd.schedule import Gate, Item
from specscope.engine.ppsd.stage import Stage

#: What the last stage says of a row: the token after it, given its logits (V,), the coin, and room for what else is
#: recorded.
Verifier = Callable[[torch.Tensor, Message, Message], int]


#: Messages with nothing to run.
NEWS = frozenset({Kind.EPOCH, Kind.LEAVE})


class Links(NamedTuple):
    """How a rank is connected."""

    inbox: Inbox
    following: Sender  # to the next stage; of the last one, to the first


class Worker:
    """One stage after the first.

    Args:
        verify: of the last stage; None of the others.
        idle: called while nothing arrives, and between items.
    """

    def __init__(
        self, stage: Stage, links: Links, log: EventLog, *, verify: Verifier | None, idle: Callable[[], None]
    ) -> None:
        self.stage, self._links, self._log = stage, links, log
        self.verify, self._idle = verify, idle
        self.gate = Gate()
        self._waiting: deque[Arrival] = deque()

    @torch.inference_mode()
    def serve(self) -> None:
        """Works until the run is over.

        Raises:
            StageLostError: where another rank is gone.
        """
        while True:
            arrival = self._next()
            message = arrival.message
            if message.kind == Kind.STOP:
                self._links.following.send(self._links.following.free().begin(Kind.STOP))
                self._links.following.drain()
                self._links.inbox.give_back(arrival)
                self._links.inbox.hear_out(self._idle)
                return
            if message.kind == Kind.FLUSH:
                self._hand_on_log(message)
            else:
                self._take(arrival)
            self._links.inbox.give_back(arrival)

    def _next(self) -> Arrival:
        """The next message that is more than news; all news that has arrived is heard first."""
        while True:
            self._idle()
            arrival = self._links.inbox.take(0.0 if self._waiting else LISTEN_S)
            if arrival is None:
                if self._waiting:
                    return self._waiting.popleft()
                continue
            self.gate.heard_of(arrival.message.get(Field.EPOCH))
            if arrival.message.kind in NEWS:
                self._links.inbox.give_back(arrival)
            else:
                self._waiting.append(arrival)

    def _take(self, arrival: Arrival) -> None:
        message, item = arrival.message, item_of(arrival.message)
        admission = self.gate.admit(item, message.num_rows)
        if admission.drop is not None:
            self._log.keep(message)
            self._log.drop(item, admission.drop)
            return
        self._log.add(EventKind.HOP, item, message.get(Field.SENT_NS), arrival.received_ns)
        if admission.cut is not None:
            before = self.stage.length
            self.stage.cut(admission.cut)
            self._log.add(EventKind.CUT, item, before, self.stage.length)
        begun = time.monotonic_ns()
        hidden = self.stage.run(self.stage.bring(message.rows()))
        if self.verify is None:
            self._forward(message, item, hidden, begun)
        else:
            self._judge(message, item, hidden, begun)

    def _forward(self, message: Message, item: Item, hidden: torch.Tensor, begun: int) -> None:
        following = self._links.following.free().begin(message.kind)
        following.header[:] = message.header
        following.put_rows(hidden)
        self._send(following, message, item, begun)

    def _judge(self, message: Message, item: Item, hidden: torch.Tensor, begun: int) -> None:
        assert self.verify is not None
        last = item.position + message.num_rows - 1
        result = self._links.following.free().begin(
            Kind.RESULT, position=last, epoch=item.epoch, wants_result=message.get(Field.WANTS_RESULT)
        )
        if message.get(Field.WANTS_RESULT):
            token = self.verify(self.stage.logits(hidden), message, result)
            result.header[Field.TOKEN] = token
            self.gate.expect(Item(last + 1, token, item.epoch))
        self._send(result, message, item, begun)

    def _send(self, outgoing: Message, message: Message, item: Item, begun: int) -> None:
        ended = time.monotonic_ns()
        kind = EventKind.PREFILL if message.kind == Kind.PREFILL else EventKind.VERIFY
        self._log.add(kind, item, begun, ended)
        outgoing.pass_log(message)
        self._log.hand_on(outgoing)
        outgoing.header[Field.SENT_NS] = ended
        self._links.following.send(outgoing)

    def _hand_on_log(self, message: Message) -> None:
        outgoing = self._links.following.free().begin(Kind.FLUSH)
        outgoing.pass_log(message)
        self._log.hand_on(outgoing)
        self._links.following.send(outgoing)
