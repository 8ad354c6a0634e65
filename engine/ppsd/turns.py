"""The first rank's run: prompts in, turns out, one conversation after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import check_turn
from specscope.engine.ppsd.conductor import Conductor, PipelineRequest
from specscope.engine.ppsd.outcome import PipelineObserver, PipelineTurn
from specscope.engine.run.conversation import Conversation
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import decode_text, turn_seed
from specscope.engine.settings import Settings
from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import UsageError


class PipelineReport(NamedTuple):
    """One finished turn."""

    turn: int  # its number in the run, from 0
    prompt_id: str
    prompt_turn: int  # its number in its prompt, from 0
    result: PipelineTurn
    text: str | None  # None where the teacher has no tokenizer


class Observing(Protocol):
    """Gives each turn its observer."""

    def __call__(self, number: int, prompt: Prompt, prompt_turn: int) -> PipelineObserver | None:
        """The observer of turn ``number`` of the run."""


class PipelineEvents(NamedTuple):
    """What the caller wants to hear of while decoding."""

    turn_begins: Callable[[Prompt, int], None]  # with the turn's number in the run
    tokens: Callable[[Prompt, list[int]], None]  # all output ids so far


def stop_rules(settings: Settings, teacher: Teacher) -> StopRules:
    """When a turn ends, by ``settings``."""
    return StopRules(settings.max_new_tokens, teacher.eos_token_ids, list(settings.stop_strings))


def check_prompts(prompts: list[Prompt], teacher: Teacher, rules: StopRules) -> None:
    """Refuses prompts that do not fit, before anything is written.

    Raises:
        UsageError: naming the prompt.
    """
    for prompt in prompts:
        try:
            check_turn(teacher, Conversation(teacher.tokenizer, prompt).context(0, [], []), rules)
        except UsageError as error:
            raise UsageError(f"prompt {prompt.id!r}: {error}") from None


def run_pipeline(
    conductor: Conductor,
    teacher: Teacher,
    settings: Settings,
    prompts: list[Prompt],
    *,
    events: PipelineEvents,
    observing: Observing,
) -> Iterator[PipelineReport]:
    """Decodes every turn of every prompt, and reports each when it ends.

    Raises:
        StageLostError: where another rank is gone or does not answer.
        UsageError: where a later turn does not fit.
    """
    rules, number = stop_rules(settings, teacher), 0
    for prompt in prompts:
        conversation = Conversation(teacher.tokenizer, prompt)
        context: list[int] = []
        output: list[int] = []
        for turn in range(conversation.num_turns):
            context = conversation.context(turn, context, output)
            events.turn_begins(prompt, number)
            seed = None if settings.choice.rule.rule == "greedy" else turn_seed(settings.seed or 0, prompt.id, turn)
            request = PipelineRequest(
                context,
                check_turn(teacher, context, rules),
                observer=observing(number, prompt, turn),
                generator_seed=seed,
            )
            result = conductor.decode(request, partial(events.tokens, prompt))
            output = result.output_ids
            yield PipelineReport(number, prompt.id, turn, result=result, text=decode_text(teacher, output))
            number += 1
