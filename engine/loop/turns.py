"""The turns that a session runs: what was asked, what is running in each row, and what may not be asked at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

import torch

from specscope.engine.drafters.base import DraftPairs
from specscope.engine.guided.guide import Guide
from specscope.engine.loop.phases import Observer, TurnResult
from specscope.engine.loop.stopping import StopRules, StopWatch
from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import UsageError

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


@dataclass(kw_only=True)
class Turn:
    """A turn that is running in a row."""

    watch: StopWatch
    observer: Observer | None
    generator: torch.Generator | None
    processors: LogitsProcessorList | None
    begun_ns: int
    prompt_length: int
    guide: Guide | None = None  # where it stands in its grammar; None where it has none
    result: TurnResult = field(default_factory=TurnResult)
    pairs: DraftPairs | None = None  # what the drafter is fed next
    step: int = 0

    @property
    def generator_state(self) -> torch.Tensor | None:
        """Of its random numbers, where somebody observes and there are any."""
        return None if self.generator is None or self.observer is None else self.generator.get_state()


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
    _: KW_ONLY
    observer: Observer | None = None
    generator_seed: int | None = None  # needed where the rule draws
    criterion: Callable[[list[int]], bool] | None = None  # ends the turn at an output that meets it
    processors: LogitsProcessorList | None = None  # its own, instead of those that the decoding builds


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
