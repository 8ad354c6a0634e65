"""Decodes prompts one after another and hands out what happens: what ``run``, ``demo`` and ``bench`` share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from specscope.engine.assemble import ModelChoice, Models
from specscope.engine.faults import inject
from specscope.engine.generate import Phases, Session, TurnResult, check_turn, honest_phases
from specscope.engine.prompts import Prompt
from specscope.engine.recording import Recorder, TurnLabel
from specscope.engine.run_manifest import RunSettings, TraceLevel, build_manifest
from specscope.engine.side_files import SideFiles, check_side_folder
from specscope.engine.stopping import StopRules
from specscope.engine.teacher import Teacher
from specscope.tracer.errors import EngineError, SpecScopeError, UsageError
from specscope.tracer.writer import TraceWriter


@dataclass(frozen=True)
class TraceTarget:
    """Where and how to trace."""

    path: Path
    level: TraceLevel
    overwrite: bool
    with_text: bool


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


class TurnReport(NamedTuple):
    """One finished turn."""

    prompt_id: str
    prompt_turn: int
    result: TurnResult
    text: str | None  # None where the teacher has no tokenizer


class TurnEvents(NamedTuple):
    """What the caller wants to hear of while decoding."""

    turn_begins: Callable[[Prompt, int], None]
    tokens: Callable[[list[int]], None]  # all output ids so far


def open_trace(request: RunRequest, models: Models, warn: Callable[[str], None]) -> TraceWriter | None:
    """The trace file of the request, if it wants one.

    An existing file is replaced only here, when the models are loaded and every prompt was found to fit.

    Raises:
        UsageError: where the request cannot be run, or the file not be written.
    """
    _phases(request)
    rules = _rules(request, models)
    for prompt in request.prompts:
        try:
            check_turn(models.teacher, _turn_ids(models.teacher, prompt)[0], rules)
        except UsageError as error:
            raise UsageError(f"prompt {prompt.id!r}: {error}") from None
    if request.trace is None:
        return None
    if request.trace.level == "tensors":
        check_side_folder(request.trace.path, overwrite=request.trace.overwrite)
    return TraceWriter(request.trace.path, overwrite=request.trace.overwrite, warn=warn)


def run_turns(
    request: RunRequest, models: Models, writer: TraceWriter | None, events: TurnEvents
) -> Iterator[TurnReport]:
    """Decodes every turn of every prompt. ``writer`` is finished when the last is done, whatever happens.

    Raises:
        SpecScopeError: where a prompt does not fit or decoding fails; the trace then says so.
    """
    torch.manual_seed(request.seed)
    rules = _rules(request, models)
    recorder = _recorder(request, models, writer, rules)
    reason: Literal["complete", "interrupted", "failed"] = "failed"
    try:
        number = 0
        for prompt in request.prompts:
            session = Session(models.teacher, models.drafter, _phases(request))
            context: list[int] = []
            for turn, new_ids in enumerate(_turn_ids(models.teacher, prompt)):
                context = context + new_ids
                events.turn_begins(prompt, turn)
                if recorder is not None:
                    text = prompt.turns[turn] if prompt.turns and request.trace and request.trace.with_text else None
                    recorder.begin_turn(TurnLabel(number, prompt.id, turn, text))
                result = _decode_turn(session, context, rules, recorder, events, prompt.id)
                context = context + result.output_ids
                number += 1
                yield TurnReport(prompt.id, turn, result, decode_text(models.teacher, result.output_ids))
        reason = "complete"
    except (KeyboardInterrupt, GeneratorExit):
        reason = "interrupted"
        raise
    finally:
        if writer is not None:
            writer.finish(reason)


def _decode_turn(
    session: Session,
    context: list[int],
    rules: StopRules,
    recorder: Recorder | None,
    events: TurnEvents,
    prompt_id: str,
) -> TurnResult:
    try:
        with closing(session.decode(context, rules, recorder)) as steps:  # an interrupt ends the turn's record first
            for _ in steps:
                events.tokens(session.result.output_ids)
    except UsageError as error:
        raise UsageError(f"prompt {prompt_id!r}: {error}") from None
    except SpecScopeError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise EngineError(f"decoding prompt {prompt_id!r} failed: {type(error).__name__}: {error}") from error
    events.tokens(session.result.output_ids)
    return session.result


def _rules(request: RunRequest, models: Models) -> StopRules:
    if "" in request.stop_strings:
        raise UsageError("got an empty stop string, which every text contains: leave it out")
    return StopRules(request.max_new_tokens, models.teacher.eos_token_ids, request.stop_strings)


def _phases(request: RunRequest) -> Phases:
    phases = honest_phases()
    return inject(phases, request.fault) if request.fault else phases


def _recorder(request: RunRequest, models: Models, writer: TraceWriter | None, rules: StopRules) -> Recorder | None:
    if writer is None or request.trace is None:
        return None
    choice = request.choice
    settings = RunSettings(
        choice.mode, choice.attention, choice.dtype, request.seed, request.trace.level, rules, request.fault
    )
    manifest = build_manifest(uuid.uuid4().hex, settings, models.teacher, models.drafter)
    side = (
        SideFiles(request.trace.path, overwrite=request.trace.overwrite) if request.trace.level == "tensors" else None
    )
    return Recorder(writer, manifest, _token_text(models.teacher) if request.trace.with_text else None, side)


def _token_text(teacher: Teacher) -> Callable[[int], str]:
    if teacher.tokenizer is None:
        raise UsageError(f"{teacher.folder} has no tokenizer: --trace-text needs one")
    tokenizer = teacher.tokenizer
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))


def _turn_ids(teacher: Teacher, prompt: Prompt) -> list[list[int]]:
    """The ids that each turn adds."""
    if prompt.ids:
        return [list(prompt.ids)]
    tokenizer = teacher.tokenizer
    if tokenizer is None:
        raise UsageError(f"{teacher.folder} has no tokenizer: give prompts as 'ids'")
    return [
        # Special tokens begin a conversation, not its later turns.
        list(tokenizer(text, verbose=False, add_special_tokens=number == 0).input_ids)
        for number, text in enumerate(prompt.turns)
    ]


def decode_text(teacher: Teacher, ids: list[int]) -> str | None:
    """The text of ``ids`` without special tokens; None where the teacher has no tokenizer."""
    if teacher.tokenizer is None:
        return None
    return str(teacher.tokenizer.decode(ids, skip_special_tokens=True))
