"""Asks the oracle about one step, where it was loaded: drawings are given the answer."""

from __future__ import annotations

from dataclasses import replace

from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.oracle.invariants.needs import why_skipped
from specscope.tracer.oracle.step import SKIPPED, judge_step
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.step.judgement import JudgedStep, Judgement, violated_slots
from specscope.viewer.drawing.step_view import StepView


def judge(context: Context) -> Judgement:
    """Recomputes every invariant of the step of ``context``."""
    judgement = Judgement([], [], [])
    for invariant, witness in judge_step(context):
        if witness is None:
            judgement.passed.append((invariant.id, invariant.statement))
        elif witness is SKIPPED:
            judgement.skipped.append((invariant.id, why_skipped(context, invariant)))
        else:
            judgement.violated.append((invariant.id, witness))
    return judgement


def judged_step(context: Context, texts: TokenTexts, marks: NodeMarks | None = None) -> JudgedStep:
    """The step of ``context`` to be drawn.

    Args:
        context: the step, and what its invariants are judged by.
        texts: of its tokens.
        marks: what to mark besides the nodes that violated invariants name.
    """
    judgement = judge(context)
    violated = violated_slots(judgement, context.step)
    return JudgedStep(StepView(context.step, texts, replace(marks or NodeMarks(), violated=violated)), judgement)
