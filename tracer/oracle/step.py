"""One step beside every invariant that can judge it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from specscope.schemas import Step
from specscope.tracer.errors import TraceError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import shorten
from specscope.tracer.oracle.invariants.base import Context, Invariant
from specscope.tracer.oracle.invariants.needs import arrays_of, missing_draw, missing_need
from specscope.tracer.oracle.invariants.registry import ON_STEPS, STRUCTURE
from specscope.tracer.oracle.invariants.tensors import SIZES
from specscope.tracer.oracle.report import Violation

LONGEST_WITNESS = 2000  # characters; a record may be as long as it likes
SKIPPED: Final = "skipped"


def context_at(reader: TraceReader, turn: TurnEntry, number: int) -> Context:
    """Step ``number`` of ``turn``, as ``context_of`` has it.

    Raises:
        NoSuchStepError: where the turn has no such step.
        TraceError: where the step itself, or the record that begins the turn, cannot be read.
    """
    return context_of(reader, turn, number, reader.step(turn, number))


def context_of(reader: TraceReader, turn: TurnEntry, number: int, step: Step) -> Context:
    """``step``, which stands as number ``number`` in ``turn``, to be judged beside the one before it; where that cannot
    be read, without it.

    Raises:
        TraceError: where the record that begins the turn cannot be read.
    """
    start, previous = reader.turn_start(turn), None
    if number:
        with contextlib.suppress(TraceError):
            previous = reader.step(turn, number - 1)
    is_lost = number > 0 and previous is None
    return Context(manifest=reader.manifest, turn=start, previous=previous, step=step, previous_is_lost=is_lost)


def step_violations(context: Context) -> Iterator[Violation]:
    """The violated invariants of one step."""
    for invariant, witness in judge_step(context):
        if witness is not None and witness is not SKIPPED:
            yield Violation(invariant.id, witness, turn=context.step.turn, step=context.step.step)


def judge_step(context: Context) -> Iterator[tuple[Invariant[Any], str | None]]:
    """Every invariant of a step with its witness, None where it holds, ``SKIPPED`` where it cannot be judged.

    Those that say nothing of such a step, as of trials under rule greedy, are left out.
    """
    arrays = arrays_of(context)
    misshapen = None if arrays is None else witness_of(SIZES, arrays)
    for structural in STRUCTURE:
        if structural is SIZES and arrays is not None:
            yield structural, misshapen
        else:
            judged = arrays is not None and misshapen is None and missing_need(context, structural.needs) is None
            yield structural, witness_of(structural, arrays) if judged else SKIPPED
    for invariant in ON_STEPS:
        if not invariant.applies(context):
            continue
        missing = missing_need(context, invariant.needs) or missing_draw(context, invariant)
        unjudged = missing is not None or (misshapen is not None and _needs_tree(invariant.needs))
        yield invariant, SKIPPED if unjudged else witness_of(invariant, context)


@cache
def _needs_tree(needs: tuple[str, ...]) -> bool:
    return any(need.split(".")[0] in ("tree", "tensors") for need in needs)


def witness_of(invariant: Invariant[Any], subject: Any) -> str | None:
    """The witness. A record too malformed for the rule to be evaluated violates it."""
    try:
        witness = invariant.check(subject)
        return None if witness is None else shorten(witness, LONGEST_WITNESS)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, ZeroDivisionError, MemoryError) as error:
        return f"the record does not fit together ({type(error).__name__}: {error})"
