"""A step that failed, as far as the failure record holds it: it is not among the steps of the trace. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from specscope.schemas import Failure, Sampling, Step
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.naming.failures import in_phase
from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.markup import Markup

#: What a failure record may hold of the phases before the one that failed, as the step itself would.
SECTIONS = ("draft", "tree", "tensors")


class FailedStep(NamedTuple):
    """A step that was not finished."""

    failure: Failure
    step: Step  # with the sections of the phases that were


def failed_step(failure: Failure, sampling: Sampling) -> FailedStep | None:
    """The step that failed; None where its record holds no tree, or cannot be read as sections of a step.

    Args:
        failure: the record.
        sampling: of the manifest, which says by what rule tokens were accepted.
    """
    if failure.turn is None or failure.step is None or "tree" not in failure.inputs:
        return None
    sections: dict[str, Any] = {name: failure.inputs[name] for name in SECTIONS if name in failure.inputs}
    accepted = failure.inputs.get("accept")
    if isinstance(accepted, dict) and isinstance(accepted.get("path"), list):
        sections["accept"] = {**accepted, "rule": sampling.rule, "accepted_length": len(accepted["path"])}
    try:
        step = Step.model_validate({"seq": failure.seq, "turn": failure.turn, "step": failure.step, **sections})
    except ValidationError:
        return None
    return FailedStep(failure, step)


def failed_after(turn: TurnEntry, failures: Sequence[Failure], sampling: Sampling) -> FailedStep | None:
    """The step that failed after the last recorded one of ``turn``; None where none did, or it cannot be drawn."""
    for failure in failures:
        if failure.turn == turn.turn and failure.step == len(turn.steps):
            return failed_step(failure, sampling)
    return None


def failed_step_note(failed: FailedStep, path: Path) -> Markup:
    """What to know about a step that is drawn in part; ``path`` is that of the trace."""
    failure = failed.failure
    lines = [
        shorten(failure.message, 400),
        "It is drawn as far as it was recorded; what follows in the step is missing.",
    ]
    if failure.state is not None:
        lines.append(f"To run that step again: specscope repro {shlex.quote(str(path))}")
    return note("bad", f"This step failed{in_phase(failure, ' ')}: {shorten(failure.error, 100)}", lines)
