"""Where two outputs part, token by token, although the steps that gave the tokens are not grouped alike.

A step of a pipelined run is one token, and one of a tree engine is several: most of them have no partner. The output
is the same text all the same, so that the rows can be compared that gave the first token that differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import Difference
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.outputs import Output
from specscope.tracer.compare.said import said_at
from specscope.tracer.compare.steps import choice, difference


class TokenSource(NamedTuple):
    """The row that gave a token."""

    step: Step
    slot: int
    token: int


def first_other_token(a: Output, b: Output) -> int | None:
    """Its place in the outputs; None where one is the beginning of the other."""
    pairs = zip(a.token_ids, b.token_ids, strict=False)
    return next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), None)


def source_of(steps: Iterable[Step], index: int) -> TokenSource | None:
    """The row that gave the token at ``index`` of the output; None of the prompt's own, or where none was recorded."""
    before = 1  # the first token is the prompt's own
    for step in steps:
        if step.stop is None or step.accept is None:
            return None
        if before <= index < before + len(step.stop.emitted):
            return _row(step, index - before)
        before += len(step.stop.emitted)
    return None


def _row(step: Step, at: int) -> TokenSource | None:
    assert step.accept is not None
    rows = [0, *step.accept.path]
    assert step.stop is not None
    return TokenSource(step, rows[at], step.stop.emitted[at]) if at < len(rows) else None


def token_difference(a: TokenSource, b: TokenSource, judge: FloatJudge) -> Difference | None:
    """What differs between the rows that gave two tokens: the teacher's choices, or else what was made of them. None
    where these were not recorded."""
    if a.step.verify is None or b.step.verify is None:
        return None
    ours, theirs = said_at(a.step.verify, a.slot), said_at(b.step.verify, b.slot)
    if ours is None or theirs is None:
        return None
    node = StepNodes(a.step).key_of(a.slot)
    if ours.best != theirs.best:
        return choice(judge, "argmax", ours, theirs, inputs_equal=True, node=node)
    return difference("accept", "bonus_token", a.token, b.token, kind="structural", inputs_equal=True, node=node)
