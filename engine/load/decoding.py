"""From settings to what the loop is set to do: the one place that knows what a mode means to it."""

from __future__ import annotations

from dataclasses import replace

from specscope.engine.accept.processors import build_processors
from specscope.engine.loop.phases import Decoding, Phases
from specscope.engine.settings import ProcessorChoice, Settings
from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import UsageError

DEFAULT_PHASES = Phases()


def decoding_of(settings: Settings, teacher: Teacher, phases: Phases = DEFAULT_PHASES) -> Decoding:
    """How a session decodes by ``settings``, with ``phases``.

    Raises:
        UsageError: where bad words were given and the teacher has no tokenizer, or transformers refuses a value.
    """
    processors = _with_bad_words(settings, teacher)
    return Decoding(
        rule=settings.choice.rule,
        cache_strategy=settings.cache_strategy,
        # The fused path leaves the check to the device, so that a step waits for it only once. On the host there is
        # nothing to wait for, and the check before costs less.
        checks="before" if settings.choice.attention == "eager" or teacher.device.type == "cpu" else "deferred",
        processors=build_processors(processors, teacher.eos_token_ids, teacher.device),
        phases=replace(phases, stop_on_violation=True) if settings.strict else phases,
    )


def _with_bad_words(settings: Settings, teacher: Teacher) -> ProcessorChoice:
    if not settings.bad_words:
        return settings.processors
    if teacher.tokenizer is None:
        raise UsageError(f"{teacher.folder} has no tokenizer: --bad-words needs one")
    ids = [list(teacher.tokenizer(text, add_special_tokens=False).input_ids) for text in settings.bad_words]
    return replace(settings.processors, bad_words_ids=ids)
