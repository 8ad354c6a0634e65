"""The turns that a session runs: what was asked, what is running in each row, and what may not be asked at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers import LogitsProcessorList

from specscope.engine.cache.commit import CheckedLayer
from specscope.engine.decode.phases import Observer, PhaseName, TurnResult
from specscope.engine.decode.stopping import StopRules, StopWatch
from specscope.engine.drafters.base import DraftPairs
from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import UsageError


class PhaseClock:
    """Which phase is running, and what each took."""

    def __init__(self) -> None:
        self.current: PhaseName = "prefill"
        self.durations_ns: dict[str, int] = {}

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        """Times the block as phase ``name``; leaves ``current`` standing where it fails."""
        self.current = name
        begun = time.perf_counter_ns()
        yield
        self.durations_ns[name] = time.perf_counter_ns() - begun


@dataclass
class Turn:
    """A turn that is running in a row."""

    watch: StopWatch
    observer: Observer | None
    generator: torch.Generator | None
    processors: LogitsProcessorList | None
    begun_ns: int
    prompt_length: int
    result: TurnResult = field(default_factory=TurnResult)
    pairs: DraftPairs | None = None  # what the drafter is fed next
    step: int = 0
    committed_after: dict[int, int] = field(default_factory=dict)  # by step, how long the row was behind it

    def checked_layer(self, num_layers: int) -> CheckedLayer | None:
        """The layer whose turn it is to be looked at, where somebody observes."""
        if self.observer is None:
            return None
        last = self.step - num_layers
        since = self.prompt_length if last < 0 else self.committed_after.get(last)
        return CheckedLayer(self.step % num_layers, since)


@dataclass
class Row:
    """A row of the batch: one conversation."""

    committed_ids: list[int] = field(default_factory=list)
    turn: Turn | None = None


@dataclass(frozen=True)
class TurnRequest:
    """A turn to decode."""

    prompt_ids: list[int]  # the whole context
    rules: StopRules
    observer: Observer | None = None
    generator_seed: int | None = None  # needed where the rule draws
    criterion: Callable[[list[int]], bool] | None = None  # ends the turn at an output that meets it
    processors: LogitsProcessorList | None = None  # its own, instead of those that the decoding builds


class StepBegun(NamedTuple):
    """What a step found, a row each: kept until it ends, in case that it fails."""

    steps: list[int]
    committed_lengths: list[int]
    pairs: list[DraftPairs]
    generator_states: list[torch.Tensor]  # empty where nothing is drawn, or nobody looks

    @classmethod
    def of(
        cls,
        turns: list[Turn],
        pairs: list[DraftPairs],
        committed_lengths: list[int],
        generators: list[torch.Generator],
    ) -> StepBegun:
        """What the step of ``turns`` finds now."""
        return cls([t.step for t in turns], committed_lengths, pairs, [g.get_state() for g in generators])


class TurnState(NamedTuple):
    """Where a turn stood when its prefill or a step of it began: enough to stand there again."""

    step: int | None  # None in a prefill
    context_ids: list[int]  # in a prefill the prompt; in a step the committed tokens, and the pending one last
    num_emitted: int  # how many of the last of them are output
    pairs: DraftPairs | None  # what the drafter is fed next; None in a prefill
    generator_seed: int | None  # in a prefill
    generator_state: torch.Tensor | None  # in a step that draws


def state_of(row: Row, number: int, begun: StepBegun | None, prefill: TurnRequest | None) -> TurnState:
    """Where the turn of ``row`` stood when the step that found ``begun``, or else ``prefill``, began."""
    assert row.turn is not None
    if begun is None:
        assert prefill is not None
        seed = prefill.generator_seed if row.turn.generator is not None else None
        return TurnState(None, prefill.prompt_ids, 0, None, seed, None)
    pairs = begun.pairs[number]
    context = [*row.committed_ids[: begun.committed_lengths[number]], pairs.token_list[-1]]
    state = begun.generator_states[number] if begun.generator_states else None
    return TurnState(begun.steps[number], context, len(context) - row.turn.prompt_length, pairs, None, state)


def common_length(first: list[int], second: list[int]) -> int:
    """How many leading ids are equal."""
    length = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        length += 1
    return length


def check_turn(teacher: Teacher, prompt_ids: list[int], rules: StopRules) -> StopRules:
    """The rules with the length cut to what the teacher's positions leave behind ``prompt_ids``.

    Raises:
        UsageError: for an empty prompt, ids outside the vocabulary, or a prompt longer than the positions.
    """
    if not prompt_ids:
        raise UsageError("the prompt is empty: give at least one token")
    wrong = [i for i in prompt_ids if not 0 <= i < teacher.vocab_size]
    if wrong:
        raise UsageError(f"got token id {wrong[0]}, wanted 0..{teacher.vocab_size - 1}, this teacher's ids")
    if rules.max_new_tokens < 1:
        raise UsageError(f"got {rules.max_new_tokens} new tokens, wanted at least 1")
    most = teacher.max_positions
    if most is None:
        return rules
    if len(prompt_ids) >= most:
        raise UsageError(f"the prompt has {len(prompt_ids)} tokens, this teacher has {most} positions: shorten it")
    return rules._replace(max_new_tokens=min(rules.max_new_tokens, most - len(prompt_ids)))
