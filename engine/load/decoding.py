"""From settings to what the loop is set to do: the one place that knows what a mode means to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from specscope.engine.accept.processors import build_processors
from specscope.engine.backends.choice import warn_in_python
from specscope.engine.backends.devices import backend_of
from specscope.engine.backends.graphs import GraphPolicy, choose_graphs
from specscope.engine.guided.grammar import Grammar, TokenTable, compiled
from specscope.engine.loop.phases import Decoding, Phases
from specscope.engine.settings import GrammarChoice, ProcessorChoice, Settings
from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import UsageError

DEFAULT_PHASES = Phases()


def decoding_of(
    settings: Settings,
    teacher: Teacher,
    phases: Phases = DEFAULT_PHASES,
    warn: Callable[[str], None] = warn_in_python,
) -> Decoding:
    """How a session decodes by ``settings``, with ``phases``; ``warn`` is called where it runs otherwise than asked.

    Raises:
        UsageError: where bad words or a grammar were given and the teacher has no tokenizer, transformers refuses a
            value, the grammar is none, or graphs are asked for on a device that has none.
    """
    processors = _with_bad_words(settings, teacher)
    return Decoding(
        rule=settings.choice.rule,
        cache_strategy=settings.cache_strategy,
        block_size=settings.paged_by,
        # The fused path leaves the check to the device, so that a step waits for it only once. On the host there is
        # nothing to wait for, and the check before costs less.
        checks="deferred" if _runs_beside_host(settings, teacher) else "before",
        overlaps=settings.overlap == "on" or (settings.overlap == "auto" and _runs_beside_host(settings, teacher)),
        processors=build_processors(processors, teacher.eos_token_ids, teacher.device),
        phases=replace(phases, stop_on_violation=True) if settings.strict else phases,
        graphs=graph_policy(settings, teacher, warn),
        grammar=grammar_of(settings.grammar, teacher),
        shapes=None if settings.choice.drafter_source == "none" else settings.choice.policy.shapes,
    )


def _runs_beside_host(settings: Settings, teacher: Teacher) -> bool:
    """Whether a device works while the host goes on: the eager path waits for it at every phase."""
    return settings.choice.attention != "eager" and teacher.device.type != "cpu"


def graph_policy(
    settings: Settings, teacher: Teacher, warn: Callable[[str], None] = warn_in_python
) -> GraphPolicy | None:
    """How verify forwards are captured; None where they are not.

    Raises:
        UsageError: where graphs are asked for on a device that has none, or with a kernel that cannot be captured.
    """
    choice, attention = settings.choice, teacher.attention
    capturable = attention is None or attention.kernel is None or attention.kernel.capturable
    if choice.graph == "on" and not capturable:
        raise UsageError(f"got --graph with attention {choice.attention}, which cannot be captured: drop one of them")
    # A graph reads the cache where it lay: by other strategies it moves in every step, as what is gathered of blocks.
    moves = settings.cache_strategy != "in-place" or settings.cache == "paged"
    if choice.graph == "auto" and (moves or not capturable):
        return None
    backend = backend_of(teacher.device.type)
    return choose_graphs(choice.graph, backend, teacher.device, check=choice.self_check, warn=warn)


def grammar_of(choice: GrammarChoice | None, teacher: Teacher) -> Grammar | None:
    """The grammar over the teacher's tokens; None where none is asked for.

    Raises:
        UsageError: where the teacher lacks what it takes, or the grammar is none.
    """
    if choice is None:
        return None
    backend = getattr(teacher.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UsageError(
            f"{teacher.folder} has no tokenizer.json: a grammar is matched against the texts of its tokens"
        )
    if not teacher.eos_token_ids:
        raise UsageError(f"{teacher.folder} names no end-of-text token: a complete grammar could not end a turn")
    return compiled(choice, TokenTable(backend.to_str(), teacher.vocab_size, tuple(teacher.eos_token_ids)))


def _with_bad_words(settings: Settings, teacher: Teacher) -> ProcessorChoice:
    if not settings.bad_words:
        return settings.processors
    if teacher.tokenizer is None:
        raise UsageError(f"{teacher.folder} has no tokenizer: --bad-words needs one")
    ids = [list(teacher.tokenizer(text, add_special_tokens=False).input_ids) for text in settings.bad_words]
    return replace(settings.processors, bad_words_ids=ids)
