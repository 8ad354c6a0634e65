"""A step of the baseline beside the candidate's that failed: the latter is no step of its trace, only a failure record
with what was known of it. Knows records, no pages."""

from __future__ import annotations

from typing import NamedTuple

from specscope.schemas import Failure
from specscope.tracer.compare.diff import Comparison
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.compare.outputs import output_of
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.labels.failed import failed_after
from specscope.viewer.pairs.pairs import AlignedSteps, turn_named
from specscope.viewer.pairs.states import Spot


class FailedPair(NamedTuple):
    """A step of the baseline, and the candidate's that began at the same position and failed."""

    steps: AlignedSteps
    failure: Failure


def failed_beside(a: TraceReader, b: TraceReader, marks: TurnMarks | None, at: Spot) -> FailedPair | None:
    """The baseline's step ``at`` and the candidate's failed one; None where none failed there, or it is not drawable.

    Raises:
        TraceError: where a record cannot be read.
    """
    turn_a = turn_named(a, at.turn)
    turn_b = turn_named(b, marks.turn_b) if marks is not None and marks.same_prompt else None
    if turn_a is None or turn_b is None:
        return None
    failed = failed_after(turn_b, b.failures(), b.manifest.sampling)
    if failed is None or _num_emitted(turn_a, at.step) != _num_emitted(turn_b, len(turn_b.steps)):
        return None
    number = len(turn_b.steps)
    before = output_of(b, turn_b).token_ids
    is_same = output_of(a, turn_a).token_ids[: len(before)] == before
    mark = PairMark(step_a=at.step, step_b=number, position=0, state="root", root=None, same_context=is_same)
    steps = AlignedSteps(
        turn_a=turn_a,
        turn_b=turn_b,
        mark=mark,
        a=a.step(turn_a, at.step),
        b=failed.step,
        previous_a=a.step(turn_a, at.step - 1) if at.step else None,
        previous_b=b.step(turn_b, number - 1) if number else None,
        regrouped=at.step != number,
    )
    return FailedPair(steps, failed.failure)


def failed_spot(a: TraceReader, b: TraceReader, comparison: Comparison) -> Spot | None:
    """The first step of the baseline beside one of the candidate's that failed."""
    for marks in comparison.turns:
        turn_a = turn_named(a, marks.turn_a)
        for step in range(len(turn_a.steps) if turn_a is not None else 0):
            if failed_beside(a, b, marks, Spot(marks.turn_a, step)) is not None:
                return Spot(marks.turn_a, step)
    return None


def _num_emitted(turn: TurnEntry, num_steps: int) -> int:
    """Tokens that the first steps of a turn emitted."""
    return sum(length + 1 for length in turn.accepted_lengths[:num_steps])
