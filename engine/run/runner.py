"""Decodes prompts one after another and hands out what happens: what ``run``, ``demo`` and ``bench`` share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import xxhash

from specscope.engine.backends.choice import warn_in_python
from specscope.engine.cache.rows import RowList
from specscope.engine.load.decoding import DEFAULT_PHASES, decoding_of
from specscope.engine.load.models import Models
from specscope.engine.loop.phases import Phases, StepResult, TurnResult
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest, check_turn
from specscope.engine.record.manifest import RunFacts
from specscope.engine.record.recorder import Joined, TraceRecorder, TurnLabel
from specscope.engine.record.target import RUN_ERRORS, ending
from specscope.engine.record.target import TraceTarget as TraceTarget  # how callers ask for a trace
from specscope.engine.run.clocks import Clock, SecondsClock, StepClock
from specscope.engine.run.conversation import Conversation
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.schedule import Cancel, Drop, Join, RowSchedule
from specscope.engine.settings import Settings
from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import EngineError, SpecScopeError, UsageError
from specscope.tracer.files.writer import RunSink


@dataclass(frozen=True)
class RunRequest:
    """A run: what is decoded, how, and where its trace goes."""

    settings: Settings
    prompts: list[Prompt]
    trace: TraceTarget | None = None

    def __post_init__(self) -> None:
        redacted = self.trace is not None and self.trace.redact is not None
        if redacted and self.settings.grammar is not None:
            raise UsageError(
                "got a grammar and --redact: a digest of the few tokens that a grammar allows tells which they are; "
                "leave one out"
            )


@dataclass(frozen=True)
class Workings:
    """What decodes: the models, and the loop's phases."""

    models: Models
    phases: Phases = DEFAULT_PHASES


def unchanged(workings: Workings) -> Workings:
    """As they are."""
    return workings


class TurnReport(NamedTuple):
    """One finished turn."""

    turn: int  # its number in the run, from 0
    prompt_id: str
    prompt_turn: int  # its number in its prompt, from 0
    result: TurnResult
    text: str | None  # None where the teacher has no tokenizer


class TurnEvents(NamedTuple):
    """What the caller wants to hear of while decoding."""

    turn_begins: Callable[[Prompt, int], None]  # with the turn's number in the run
    tokens: Callable[[Prompt, list[int]], None]  # all output ids of its running turn so far
    stepped: Callable[[list[StepResult]], None] = lambda _: None  # each step, one result per row
    warn: Callable[[str], None] = warn_in_python  # decoding goes on otherwise than asked
    #: A turn of the prompt, by its number in it, never began: the request was cancelled while it waited for a row, or
    #: since its last turn ended.
    never_began: Callable[[Prompt, int], None] = lambda *_: None


#: Nobody listens.
QUIET = TurnEvents(lambda *_: None, lambda *_: None)


def give_up(warning: str) -> None:
    """For a trace that must be whole: a warning of its writer ends the run."""
    raise EngineError(warning)


def open_trace(request: RunRequest, models: Models, warn: Callable[[str], None] = give_up) -> RunSink | None:
    """The trace file of the request, if it names one.

    An existing file is replaced only here, when the models are loaded and every prompt was found to fit.

    Raises:
        UsageError: where the request cannot be run, or the file not be written.
    """
    decoding_of(request.settings, models.teacher)
    rules = _rules(request.settings, models)
    for prompt in request.prompts:
        try:
            check_turn(models.teacher, Conversation(models.teacher.tokenizer, prompt).context(0, [], []), rules)
        except UsageError as error:
            raise UsageError(f"prompt {prompt.id!r}: {error}") from None
    return request.trace.open(warn) if request.trace is not None else None


def run_turns(
    request: RunRequest,
    models: Models,
    writer: RunSink | None,
    events: TurnEvents = QUIET,
    *,
    change: Callable[[Workings], Workings] = unchanged,
    clock: Clock | None = None,
) -> Generator[TurnReport, None, None]:
    """Decodes every turn of every prompt, as many conversations side by side as the settings say; reports each turn
    when it ends. ``writer`` is finished when the last is done, whatever happens.

    Args:
        change: what decodes instead of the models and the loop's own phases; the manifest tells of the models alone.
        clock: what requests arrive by; None: one of the kind that the settings name.

    Raises:
        UsageError: where the settings name a fault and no ``change`` puts it in: the manifest would claim it.
        SpecScopeError: where a prompt does not fit or decoding fails; the trace then says so.
    """
    if request.settings.fault is not None and change is unchanged:
        raise UsageError(f"got fault {request.settings.fault} in the settings, and nothing that injects it")
    recorder = _recorder(request, models, writer)
    run = _Run(request, change(Workings(models)), recorder, events, clock)
    try:
        with ending(run.session, writer):
            yield from run.turns()
    except SpecScopeError:
        raise
    except RUN_ERRORS as error:
        raise EngineError(f"decoding failed: {type(error).__name__}: {error}{_way_out(error)}") from error


def _way_out(error: Exception) -> str:
    """What to do about a failure of torch's that is known."""
    if "pack_vnni2" in str(error):
        return (
            "; torch's kernels and oneDNN disagree about this CPU:"
            " set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 as well, or unset ATEN_CPU_CAPABILITY"
        )
    return ""


@dataclass(kw_only=True)
class _Talk:
    """A conversation in a row of the batch."""

    request: int  # its number in the schedule
    prompt: Prompt
    conversation: Conversation
    turn: int = -1  # of the prompt; none has begun
    number: int = -1  # of that turn in the run
    context: list[int] = field(default_factory=list)
    result: TurnResult = field(default_factory=TurnResult)  # of that turn

    @property
    def has_more(self) -> bool:
        """Whether another turn follows."""
        return self.turn + 1 < self.conversation.num_turns


class _Run:
    """The rows and what runs in them, as the schedule says."""

    def __init__(
        self,
        request: RunRequest,
        workings: Workings,
        recorder: TraceRecorder | None,
        events: TurnEvents,
        clock: Clock | None,
    ) -> None:
        settings, models = request.settings, workings.models
        self._request, self._models, self._recorder, self._events = request, models, recorder, events
        self._rules = _rules(settings, models)
        self._num_begun = 0
        self._talks: RowList[_Talk] = RowList()  # in the rows
        self._stepped: list[StepResult] = []  # by the last step, until its results are delivered
        decoding = decoding_of(settings, models.teacher, workings.phases, events.warn)
        self.session = Session(models.teacher, models.drafter, decoding, num_rows=0)
        self._clock = clock or (StepClock() if settings.arrivals_clock == "steps" else SecondsClock())
        self._schedule = RowSchedule([prompt.times for prompt in request.prompts], settings.batch_size, self._clock)

    def turns(self) -> Iterator[TurnReport]:
        """Decodes them all. Whatever ends it, results that still wait are delivered."""
        try:
            yield from self._turns()
        finally:
            self._deliver()

    def _turns(self) -> Iterator[TurnReport]:
        while not self._schedule.is_over:
            # Who is cancelled leaves; who waits takes the rows that are free. A turn may end with its first token.
            while moves := self._schedule.moves():
                yield from self._move(moves)
            if not self._talks:
                continue
            # All rows go one step further; if the results of the last step wait, they are delivered beside the draft.
            self._stepped = self.session.step(self._deliver if self._stepped else None)
            self._schedule.advance()
            if not self.session.decoding.overlaps or any(result.stop.reason for result in self._stepped):
                self._deliver()
            # Who is done begins the next turn, or leaves.
            for row in self.session.end_stopped():
                yield self._report(self._talks[row])
                yield from self._go_on(row)

    def _deliver(self) -> None:
        """Tells the caller of the last step, once, while the rows are as it left them."""
        results, self._stepped = self._stepped, []
        if not results:
            return
        self._events.stepped(results)
        for talk in self._talks:
            self._events.tokens(talk.prompt, talk.result.output_ids)

    def _cancel(self, cancel: Cancel) -> Iterator[TurnReport]:
        """Ends the turn of a request that nobody wants any more; one that still waits has none."""
        if cancel.row is None:
            self._events.never_began(self._request.prompts[cancel.request], 0)
            return
        self.session.cancel(cancel.row)
        yield self._report(self._talks[cancel.row])

    def _move(self, moves: list[Cancel | Join | Drop]) -> Iterator[TurnReport]:
        """Ends who is cancelled, gives the rows to who takes them, and drops those that nobody takes."""
        self._deliver()
        joins = [move for move in moves if isinstance(move, Join)]
        self.session.add_rows(sum(join.is_added for join in joins))
        for move in moves:
            if isinstance(move, Cancel):
                yield from self._cancel(move)
                continue
            if isinstance(move, Drop):
                self.session.drop_row(move.row)
                self._talks.drop_row(move.row)
                continue
            prompt = self._request.prompts[move.request]
            talk = _Talk(
                request=move.request, prompt=prompt, conversation=Conversation(self._models.teacher.tokenizer, prompt)
            )
            if move.is_added:
                self._talks.append(talk)
            else:
                self._talks[move.row] = talk
                self.session.clear_row(move.row)
            yield from self._go_on(move.row)

    def _go_on(self, row: int) -> Iterator[TurnReport]:
        """Begins the next turn of the conversation in ``row``; where there is none, or it was cancelled by then, the
        request is over. A turn that ends with its very first token is reported, and the next one begun."""
        talk = self._talks[row]
        while talk.turn < 0 or (talk.has_more and not self._schedule.is_cancelled(talk.request)):
            talk.turn += 1
            talk.number = self._num_begun
            self._num_begun += 1
            talk.context = talk.conversation.context(talk.turn, talk.context, talk.result.output_ids)
            self._events.turn_begins(talk.prompt, talk.number)
            talk.result = self.session.begin(row, self._turn_request(talk))
            self._events.tokens(talk.prompt, talk.result.output_ids)
            if self.session.rows[row].turn is not None:
                return
            yield self._report(talk)
        if talk.has_more:
            self._events.never_began(talk.prompt, talk.turn + 1)
        self._schedule.end(talk.request)

    def _turn_request(self, talk: _Talk) -> TurnRequest:
        prompt, observer = talk.prompt, None
        if self._recorder is not None:
            with_text = self._request.trace is not None and self._request.trace.with_text
            text = prompt.turns[talk.turn] if prompt.turns and with_text else None
            observer = self._recorder.turn(TurnLabel(talk.number, prompt.id, talk.turn, text, self._joined(talk)))
        seed = turn_seed(self._request.settings.seed or 0, prompt.id, talk.turn)
        return TurnRequest(talk.context, self._rules, observer=observer, generator_seed=seed)

    def _joined(self, talk: _Talk) -> Joined:
        """When the talk's request arrived and its turn begins."""
        waited_ns = None
        if self._request.settings.arrivals_clock == "seconds" and talk.turn == 0:
            waited_ns = round(self._schedule.waited[talk.request] * 1e9)
        return Joined(self._schedule.arrived_at[talk.request], self._clock.steps, waited_ns)

    def _report(self, talk: _Talk) -> TurnReport:
        text = decode_text(self._models.teacher, talk.result.output_ids)
        return TurnReport(
            turn=talk.number, prompt_id=talk.prompt.id, prompt_turn=talk.turn, result=talk.result, text=text
        )


def turn_seed(seed: int, prompt_id: str, prompt_turn: int) -> int:
    """The seed of one turn: what a turn draws does not depend on what was decoded before or beside it."""
    return xxhash.xxh3_64_intdigest(f"{seed}/{prompt_turn}/{prompt_id}".encode()) >> 1


def _rules(settings: Settings, models: Models) -> StopRules:
    return StopRules(settings.max_new_tokens, models.teacher.eos_token_ids, list(settings.stop_strings))


def _recorder(request: RunRequest, models: Models, writer: RunSink | None) -> TraceRecorder | None:
    if writer is None or request.trace is None:
        return None
    settings = request.settings
    decoding = decoding_of(settings, models.teacher)
    rules = _rules(settings, models)
    facts = RunFacts(settings, request.trace.level, rules, decoding.processors, decoding.grammar)
    return request.trace.record(writer, facts, models)


def decode_text(teacher: Teacher, ids: list[int]) -> str | None:
    """The text of ``ids`` without special tokens; None where the teacher has no tokenizer."""
    if teacher.tokenizer is None:
        return None
    return str(teacher.tokenizer.decode(ids, skip_special_tokens=True))
