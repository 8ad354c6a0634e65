"""Decodes prompts one after another and hands out what happens: what ``run``, ``demo`` and ``bench`` share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import xxhash

from specscope.engine.accept.processors import NO_PROCESSORS, ProcessorChoice, build_processors
from specscope.engine.decode.phases import Decoding, Phases, TurnResult
from specscope.engine.decode.session import Session
from specscope.engine.decode.stopping import StopRules
from specscope.engine.decode.turns import TurnRequest, check_turn
from specscope.engine.lab.faults import FaultTarget, check_fits, find_fault, inject
from specscope.engine.load.models import ModelChoice, Models
from specscope.engine.record.manifest import RunSettings
from specscope.engine.record.recorder import Recorder, TurnLabel
from specscope.engine.record.target import RUN_ERRORS, ending
from specscope.engine.record.target import TraceTarget as TraceTarget  # how callers ask for a trace
from specscope.engine.run.conversation import Conversation
from specscope.engine.run.limits import check_limits
from specscope.engine.run.prompts import Prompt
from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import EngineError, UsageError
from specscope.tracer.files.writer import TraceWriter


@dataclass(frozen=True)
class RunRequest:
    """Everything a run was asked for."""

    choice: ModelChoice
    prompts: list[Prompt]
    max_new_tokens: int
    stop_strings: list[str]
    seed: int
    trace: TraceTarget | None = None
    fault: str | None = None
    batch_size: int = 1
    cache_strategy: str = "in-place"
    processors: ProcessorChoice = NO_PROCESSORS
    bad_words: list[str] = field(default_factory=list)
    strict: bool = False  # end at the first violated invariant, with a fault in as well

    def __post_init__(self) -> None:
        check_limits(max_new_tokens=self.max_new_tokens, batch_size=self.batch_size, stop_strings=self.stop_strings)


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


def open_trace(request: RunRequest, models: Models, warn: Callable[[str], None]) -> TraceWriter | None:
    """The trace file of the request, if it wants one.

    An existing file is replaced only here, when the models are loaded and every prompt was found to fit.

    Raises:
        UsageError: where the request cannot be run, or the file not be written.
    """
    if request.fault:
        check_fits(find_fault(request.fault), models)
    _decoding(request, models, Phases())
    rules = _rules(request, models)
    for prompt in request.prompts:
        try:
            check_turn(models.teacher, Conversation(models.teacher.tokenizer, prompt).context(0, [], []), rules)
        except UsageError as error:
            raise UsageError(f"prompt {prompt.id!r}: {error}") from None
    return request.trace.open(warn) if request.trace is not None else None


def run_turns(
    request: RunRequest, models: Models, writer: TraceWriter | None, events: TurnEvents
) -> Iterator[TurnReport]:
    """Decodes every turn of every prompt, ``request.batch_size`` conversations side by side; reports each turn when it
    ends. ``writer`` is finished when the last is done, whatever happens.

    Raises:
        SpecScopeError: where a prompt does not fit or decoding fails; the trace then says so.
    """
    run = _Run(request, models, _recorder(request, models, writer), events)
    try:
        with ending(run.session, writer):
            yield from run.turns()
    except RUN_ERRORS as error:
        raise EngineError(f"decoding failed: {type(error).__name__}: {error}") from error


@dataclass
class _Talk:
    """A conversation in a row of the batch."""

    prompt: Prompt
    conversation: Conversation
    turn: int = -1  # of the prompt; none has begun
    number: int = -1  # of that turn in the run
    context: list[int] = field(default_factory=list)
    result: TurnResult = field(default_factory=TurnResult)  # of that turn


class _Run:
    """The rows and what runs in them. A row whose conversation is over takes the next prompt; when there is none left
    it is dropped, and the last row takes its number."""

    def __init__(self, request: RunRequest, models: Models, recorder: Recorder | None, events: TurnEvents) -> None:
        target = _target(request, models)
        self._request, self._models, self._recorder, self._events = request, target.models, recorder, events
        self._rules = _rules(request, models)
        self._waiting = deque(request.prompts)
        self._num_begun = 0
        num_rows = min(request.batch_size, len(request.prompts))
        self._talks = [self._next_talk() for _ in range(num_rows)]
        decoding = _decoding(request, models, target.phases)
        self.session = Session(target.models.teacher, target.models.drafter, decoding, num_rows)

    def turns(self) -> Iterator[TurnReport]:
        """Decodes them all."""
        row = 0
        while row < len(self._talks):
            yield from self._begin(row)
            row += row < len(self._talks)  # unless the row was dropped
        while self._talks:
            self.session.step()
            for talk in self._talks:
                self._events.tokens(talk.prompt, talk.result.output_ids)
            for ended in reversed(self.session.end_stopped()):
                yield self._report(self._talks[ended])
                yield from self._begin(ended)

    def _next_talk(self) -> _Talk:
        prompt = self._waiting.popleft()
        return _Talk(prompt, Conversation(self._models.teacher.tokenizer, prompt))

    def _begin(self, row: int) -> Iterator[TurnReport]:
        """Begins the next turn in ``row``, of its conversation or of the next prompt; drops the row where there is
        none. A turn that ends with its very first token is reported, and the next one begun."""
        while True:
            talk = self._talks[row]
            if talk.turn + 1 == talk.conversation.num_turns:
                if not self._waiting:
                    self.session.drop_row(row)
                    last = self._talks.pop()
                    if row < len(self._talks):
                        self._talks[row] = last
                    return
                talk = self._talks[row] = self._next_talk()
                self.session.clear_row(row)
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

    def _turn_request(self, talk: _Talk) -> TurnRequest:
        prompt, observer = talk.prompt, None
        if self._recorder is not None:
            with_text = self._request.trace is not None and self._request.trace.with_text
            text = prompt.turns[talk.turn] if prompt.turns and with_text else None
            observer = self._recorder.turn(TurnLabel(talk.number, prompt.id, talk.turn, text))
        seed = turn_seed(self._request.seed, prompt.id, talk.turn)
        return TurnRequest(talk.context, self._rules, observer, seed)

    def _report(self, talk: _Talk) -> TurnReport:
        text = decode_text(self._models.teacher, talk.result.output_ids)
        return TurnReport(talk.number, talk.prompt.id, talk.turn, talk.result, text)


def turn_seed(seed: int, prompt_id: str, prompt_turn: int) -> int:
    """The seed of one turn's own generator: what a turn draws does not hang on what was decoded before or beside it."""
    return xxhash.xxh3_64_intdigest(f"{seed}/{prompt_turn}/{prompt_id}".encode()) >> 1


def _rules(request: RunRequest, models: Models) -> StopRules:
    return StopRules(request.max_new_tokens, models.teacher.eos_token_ids, request.stop_strings)


def _target(request: RunRequest, models: Models) -> FaultTarget:
    """The models and the loop's phases, with the fault in that the request asks for."""
    target = FaultTarget(models, Phases())
    return inject(target, find_fault(request.fault)) if request.fault else target


def _decoding(request: RunRequest, models: Models, phases: Phases) -> Decoding:
    teacher, choice = models.teacher, request.choice
    return Decoding(
        rule=choice.rule,
        cache_strategy=request.cache_strategy,
        checks="deferred" if choice.attention == "fused" else "before",
        processors=build_processors(_with_bad_words(request, teacher), teacher.eos_token_ids, teacher.device),
        phases=replace(phases, stop_on_violation=True) if request.strict else phases,
    )


def _with_bad_words(request: RunRequest, teacher: Teacher) -> ProcessorChoice:
    if not request.bad_words:
        return request.processors
    if teacher.tokenizer is None:
        raise UsageError(f"{teacher.folder} has no tokenizer: --bad-words needs one")
    ids = [list(teacher.tokenizer(text, add_special_tokens=False).input_ids) for text in request.bad_words]
    return replace(request.processors, bad_words_ids=ids)


def _recorder(request: RunRequest, models: Models, writer: TraceWriter | None) -> Recorder | None:
    if writer is None or request.trace is None:
        return None
    settings = RunSettings(
        request.choice,
        request.seed,
        request.trace.level,
        _rules(request, models),
        request.cache_strategy,
        request.batch_size,
        _decoding(request, models, Phases()).processors,
        find_fault(request.fault).id if request.fault else None,
    )
    return request.trace.record(writer, settings, models)


def decode_text(teacher: Teacher, ids: list[int]) -> str | None:
    """The text of ``ids`` without special tokens; None where the teacher has no tokenizer."""
    if teacher.tokenizer is None:
        return None
    return str(teacher.tokenizer.decode(ids, skip_special_tokens=True))
