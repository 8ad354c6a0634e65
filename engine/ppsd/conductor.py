"""The first rank: it drafts, keeps the schedule, and says what is emitted.

Knows no file format. A turn's prompt flows through the stages in chunks; the exit head drafts right after its last
token. A token is emitted when the last stage's word for it arrives, and the stop rules look at each by itself: what is
in flight behind a stop is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field

import torch

from specscope.engine.accept.sampling import draw_coins
from specscope.engine.loop.interrupts import held_interrupts
from specscope.engine.loop.phases import EndReason
from specscope.engine.loop.rows import common_length
from specscope.engine.loop.stopping import StopRules, StopWatch
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.hop import LISTEN_S, Arrival, Inbox, Sender, StageLostError
from specscope.engine.ppsd.message import Event, EventKind, Field, Kind, Message
from specscope.engine.ppsd.outcome import Drafted, PipelineObserver, PipelineTurn, Verified
from specscope.engine.ppsd.pace import Pace
from specscope.engine.ppsd.schedule import Gate, Item, PipelineSchedule, Verdict
from specscope.engine.ppsd.stage import Stage

PREFILL_CHUNK = 256  # rows of the prompt per message
NO_TOKEN = 0  # fed for a whole chunk, whose tokens only the first stage needs


#: The draft after the last row of (1, P, H), which has passed the first stage; the item of that row is given too.
ExitDraft = Callable[[torch.Tensor, Item], Drafted]


@dataclass(frozen=True)
class PipelineRequest:
    """A turn to decode."""

    prompt_ids: list[int]  # the whole context
    rules: StopRules
    _: KW_ONLY
    observer: PipelineObserver | None = None
    generator_seed: int | None = None  # None: greedy


@dataclass(frozen=True, kw_only=True)
class ConductorLinks:
    """How the first rank is connected."""

    inbox: Inbox  # from the last stage
    following: Sender
    news: list[Sender]  # to the stages after the second


@dataclass
class _Running:
    """The turn that is running."""

    request: PipelineRequest
    watch: StopWatch
    generator: torch.Generator | None
    begun_ns: int
    turn: PipelineTurn
    emitted: Callable[[list[int]], None]  # called with all output ids after each token
    begun: dict[int, int] = field(default_factory=dict)  # by the position of an item, when the first stage began it
    drafts: dict[int, Drafted] = field(default_factory=dict)  # by the position of the item before
    coins: dict[int, float] = field(default_factory=dict)  # by the same
    num_verified: int = 0
    reused_length: int = 0


class Conductor:
    """The first stage, and the schedule of all.

    Args:
        pace: how many tokens are in flight.
        exit_draft: None decodes sequentially, one token in flight.
        decode_text: of token ids, for stop strings.
        idle: called between two pieces of work, and while it waits for the last stage.
        elsewhere: entered while it waits for a buffer, which another stage holds up.
        patience_s: how long the last stage may be silent while work is in flight.
    """

    def __init__(
        self,
        stage: Stage,
        links: ConductorLinks,
        log: EventLog,
        *,
        pace: Pace,
        exit_draft: ExitDraft | None,
        decode_text: Callable[[list[int]], str],
        idle: Callable[[], None],
        elsewhere: Callable[[], AbstractContextManager[None]] = nullcontext,
        patience_s: float,
    ) -> None:
        self.stage, self._links, self._log = stage, links, log
        self.exit_draft, self._decode_text = exit_draft, decode_text
        self._idle, self._elsewhere, self._patience_s = idle, elsewhere, patience_s
        self.pace = pace
        self.schedule = PipelineSchedule(pace.window())
        self.gate = Gate()
        self._committed: list[int] = []  # ids at positions that all stages have run and that count
        self._running: _Running | None = None

    @property
    def following(self) -> Sender:
        """To the second stage."""
        return self._links.following

    @torch.inference_mode()
    def decode(self, request: PipelineRequest, emitted: Callable[[list[int]], None]) -> PipelineTurn:
        """Decodes one turn; ``emitted`` is called with all output ids after each token.

        Raises:
            StageLostError: where another rank is gone or does not answer.
        """
        running = self._running = _Running(
            request=request,
            watch=StopWatch(request.rules, self._decode_text),
            generator=self._generator(request),
            begun_ns=time.perf_counter_ns(),
            turn=PipelineTurn(),
            emitted=emitted,
        )
        self.schedule.window = self.pace.window() if self.exit_draft is not None else 1
        running.turn.output_ids = running.watch.output_ids
        self._prefill(running)
        while running.watch.reason is None:
            self._idle()
            # All that has arrived counts before anything more is run: it may refute what would be.
            if self._hear(running, patience_s=0.0):
                continue
            item = self.schedule.take()
            if item is not None:
                self._run_item(running, item)
            else:
                self._hear(running, patience_s=self._patience_s)
        self._end(running.watch.reason)
        return running.turn

    def _generator(self, request: PipelineRequest) -> torch.Generator | None:
        seed = request.generator_seed
        return None if seed is None else torch.Generator().manual_seed(seed)

    def _prefill(self, running: _Running) -> None:
        """Sends the prompt on its way behind what the stages hold of it."""
        ids, rules = running.request.prompt_ids, running.request.rules
        # The last known token is run again, as the tree engine does it: the same rows go through the same forward.
        start = max(0, common_length(self._committed, ids[:-1]) - 1)
        self._committed = ids[:start]
        last = len(ids) - 1
        item = self.schedule.begin_turn(Item(last, ids[-1], 0), last + rules.max_new_tokens - 1)
        for offset in range(start, len(ids), PREFILL_CHUNK):
            self._idle()
            self._read_all(running)  # what is not read would in the end stop those that say it, and so this stage
            chunk = ids[offset : offset + PREFILL_CHUNK]
            first = Item(offset, NO_TOKEN, item.epoch)
            hidden, begun = self._run(first, chunk)
            ends = offset + len(chunk) == len(ids)
            self._send(Kind.PREFILL, first, hidden, wants_result=ends)
            self._log.add(EventKind.PREFILL, first, begun, time.monotonic_ns())
        self._draft(running, item, hidden)
        running.reused_length = start

    def _run(self, item: Item, token_ids: list[int]) -> tuple[torch.Tensor, int]:
        """The hidden states of ``token_ids`` after the first stage, and when it began."""
        admission = self.gate.admit(item, len(token_ids))
        assert admission.drop is None, "the first stage makes the epochs"
        if admission.cut is not None:
            before = self.stage.length
            self.stage.cut(admission.cut)
            self._log.add(EventKind.CUT, item, before, self.stage.length)
        begun = time.monotonic_ns()
        return self.stage.run(self.stage.embed(token_ids)), begun

    def _send(self, kind: Kind, item: Item, hidden: torch.Tensor, *, wants_result: bool) -> None:
        with self._elsewhere():
            free = self._links.following.free()
        message = free.begin(
            kind, position=item.position, token=item.token, epoch=item.epoch, wants_result=int(wants_result)
        )
        message.put_rows(hidden)
        running = self._running
        if running is not None and running.generator is not None and wants_result:
            message.coin = self._coin(running, item.position + hidden.shape[1] - 1)
        message.header[Field.SENT_NS] = time.monotonic_ns()
        self._links.following.send(message)

    def _coin(self, running: _Running, position: int) -> float:
        """What the token after ``position`` is drawn with: a coin per position, whatever the epoch. No output depends
        on how often the coin of a dropped item was looked at, and the output is that of decoding one by one."""
        assert running.generator is not None
        first = len(running.request.prompt_ids) - 1
        for number in range(first + len(running.coins), position + 1):
            num_slots = 0 if number == first else 1
            running.coins[number] = float(draw_coins(running.generator, num_slots).bonus)
        return running.coins[position]

    def _run_item(self, running: _Running, item: Item) -> None:
        hidden, begun = self._run(item, [item.token])
        self._log.add(EventKind.VERIFY, item, begun, time.monotonic_ns())
        running.begun[item.position] = begun
        self._send(Kind.ITEM, item, hidden, wants_result=True)
        while running.watch.reason is None and self._hear(running, patience_s=0.0):
            pass
        # What was heard may have made the item stale, or ended the turn: then its draft is of no use.
        if self.schedule.newest == item and running.watch.reason is None:
            self._draft(running, item, hidden)
            self.pace.took(time.monotonic_ns() - begun)

    def _draft(self, running: _Running, item: Item, hidden: torch.Tensor) -> None:
        if self.exit_draft is None:
            return
        begun = time.monotonic_ns()
        draft = self.exit_draft(hidden, item)
        self._log.add(EventKind.DRAFT, item, begun, time.monotonic_ns())
        running.drafts[item.position] = draft
        self.schedule.drafted(item, draft.token)

    def _hear(self, running: _Running, *, patience_s: float) -> bool:
        """Takes in one word of the last stage; whether there was one that counts."""
        arrival = self._await(patience_s) if patience_s else self._links.inbox.take(0.0)
        if arrival is None:
            return False
        with held_interrupts():
            if not self._take_in(running, arrival):
                return False
        running.emitted(running.watch.output_ids)
        return True

    def _read_all(self, running: _Running) -> None:
        """Takes in what the last stage says of a prompt that is still on its way: nothing of it counts."""
        while (arrival := self._links.inbox.take(0.0)) is not None:
            self._take_in(running, arrival)

    def _take_in(self, running: _Running, arrival: Arrival) -> bool:
        """Notes what the last stage said; whether it counts."""
        message = arrival.message
        self._log.keep(message)
        try:
            if message.kind != Kind.RESULT or not message.get(Field.WANTS_RESULT):
                return False
            position, epoch = message.get(Field.POSITION), message.get(Field.EPOCH)
            verdict = self.schedule.verified(position, epoch, message.get(Field.TOKEN))
            if verdict is None:
                return False
            result = Item(position, verdict.token, epoch)
            self._log.add(EventKind.HOP, result, message.get(Field.SENT_NS), arrival.received_ns)
            self._count(running, verdict, message)
        finally:
            self._links.inbox.give_back(arrival)
        return True

    def _count(self, running: _Running, verdict: Verdict, message: Message) -> None:
        """What the verdict comes to for the turn."""
        turn, observer = running.turn, running.request.observer
        running.num_verified += 1
        if running.num_verified == 1:
            turn.prefill_ns = time.perf_counter_ns() - running.begun_ns
        turn.num_drafted += verdict.draft is not None
        turn.num_accepted += verdict.accepted
        turn.num_dropped += len(verdict.dropped)
        stop = running.watch.take([verdict.token])
        if verdict.dropped:  # otherwise nothing stale is under way, and the next item tells the epoch
            self._announce()
        self._adapt(running, verdict)
        draft = running.drafts.pop(verdict.position, None)
        if observer is not None:
            verified = Verified(
                verdict=verdict,
                draft=draft,
                stop=stop,
                coin=running.coins.get(verdict.position),
                generator_seed=running.request.generator_seed,
                result=message,
                events=self._log.take(),
            )
            if running.num_verified == 1:
                observer.turn_started(running.request.prompt_ids, running.reused_length, verified)
            else:
                observer.token_verified(verified)

    def _adapt(self, running: _Running, verdict: Verdict) -> None:
        """The pace learns from a verdict, and says how many items may be in flight from now on."""
        begun = running.begun.pop(verdict.position, None)
        if verdict.draft is None or begun is None:
            return
        now = time.monotonic_ns()
        self.pace.heard(now, now - begun, held=verdict.accepted)
        self.schedule.window = self.pace.window()

    def _await(self, patience_s: float) -> Arrival:
        begun = time.monotonic()
        while True:
            self._idle()
            arrival = self._links.inbox.take(LISTEN_S)
            if arrival is not None:
                return arrival
            if time.monotonic() - begun > patience_s:
                raise StageLostError(f"the stages have not answered for {patience_s:g} s")

    def _announce(self) -> None:
        """Tells the stages that older epochs are of no use."""
        for sender in [self._links.following, *self._links.news]:
            sender.send(sender.free().begin(Kind.EPOCH, epoch=self.schedule.epoch))

    def _end(self, reason: EndReason) -> None:
        """Ends the running turn, for ``reason``."""
        running = self._running
        assert running is not None
        dropped = self.schedule.end_turn()
        running.turn.num_dropped += len(dropped)
        running.turn.reason = reason
        self._committed = [*running.request.prompt_ids, *running.watch.output_ids[:-1]]
        self._announce()
        running.turn.duration_ns = time.perf_counter_ns() - running.begun_ns
        observer = running.request.observer
        events = self._flush() if observer is not None else []
        with held_interrupts():
            self._running = None
            if observer is not None:
                observer.turn_ended(running.turn, events)

    def _flush(self) -> list[Event]:
        """All that the stages have not yet told of."""
        while True:
            message = self._links.following.free().begin(Kind.FLUSH, epoch=self.schedule.epoch)
            self._links.following.send(message)
            while True:
                arrival = self._await(self._patience_s)
                self._log.keep(arrival.message)
                is_flush, left = arrival.message.kind == Kind.FLUSH, arrival.message.get(Field.UNLOGGED)
                self._links.inbox.give_back(arrival)
                if is_flush:
                    break
            if not left:
                return self._log.take()

    def abandon(self, reason: EndReason) -> PipelineTurn | None:
        """Ends the running turn without asking the stages: they may be gone. ``reason`` is why, unless it had ended."""
        running, self._running = self._running, None
        if running is None:
            return None
        running.turn.reason = running.watch.reason or reason
        running.turn.duration_ns = time.perf_counter_ns() - running.begun_ns
        if running.request.observer is not None and running.watch.output_ids:
            running.request.observer.turn_ended(running.turn, self._log.take())
        return running.turn

    def stop(self) -> None:
        """Ends all stages, and waits until they have heard of it."""
        for sender in self._links.news:
            sender.send(sender.free().begin(Kind.LEAVE))
        self._links.following.send(self._links.following.free().begin(Kind.STOP))
        while True:
            arrival = self._await(self._patience_s)
            if arrival.message.kind == Kind.STOP:
                break
            self._links.inbox.give_back(arrival)
        self._links.inbox.hear_out(self._idle)
        for sender in [self._links.following, *self._links.news]:
            sender.drain()
