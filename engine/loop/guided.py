"""Guided decoding in the loop: a row's grammar goes along its tree and back, and then on with what was emitted.

Knows no file format and no transformers. That the grammar comes back as it went is made sure of in every step.
"""

from __future__ import annotations

import torch

from specscope.engine.guided.guide import Guide, GuideState
from specscope.engine.guided.walk import SlotMasks
from specscope.engine.loop.in_flight import RowInFlight, StepInFlight
from specscope.engine.loop.phases import GuidedStep, Phases
from specscope.engine.loop.stopping import StopDecision
from specscope.engine.tree.tensors import TreeTensors
from specscope.tracer.errors import UsageError, ViolationError


def begin_guided(guide: Guide, pending_token: int, logits: torch.Tensor) -> GuideState:
    """Where ``guide`` stands after a turn's first token, decided by ``logits`` (V,).

    Raises:
        UsageError: where that token is forbidden, or no logit was left.
    """
    refuse_empty(logits[None], 0)
    if not guide.take(pending_token):
        raise UsageError(_refusal(guide, pending_token))
    guide.settle()
    return guide.state()


def guide_step(step: StepInFlight, tensors: TreeTensors, logits: torch.Tensor, phases: Phases) -> torch.Tensor:
    """``logits`` (B, P, V) without what each row's grammar forbids after each of its slots. Reads the trees back.

    Raises:
        ViolationError: where a grammar does not come back from its tree as it went.
    """
    for row in step.rows:
        if row.turn.guide is not None:
            count = tensors.num_slots[row.number]
            tokens, parents = (ids[row.number, :count].tolist() for ids in (tensors.token_ids, tensors.parents))
            row.masks = phases.walk(row.turn.guide, tokens, parents)
            if phases.stop_on_violation and row.masks.returned != row.masks.before:
                raise ViolationError(f"row {row.number}: guided.rolled-back: {_not_as_it_went(row.masks)}")
    return phases.forbid(logits, [row.masks for row in step.rows])


def _not_as_it_went(masks: SlotMasks) -> str:
    before, returned = masks.before, masks.returned
    return (
        f"the grammar stood at position {before.position} ({before.digest}), and came back to {returned.position} "
        f"({returned.digest})"
    )


def refuse_dead_end(row: RowInFlight, logits: torch.Tensor, num_kept: int) -> None:
    """Refuses a grammar that allows nothing where one of the first ``num_kept`` tokens of the step was decided, or of
    whose tokens the processors left none there: ``logits`` (P, V) are the row's, after both. What is cut by a stop rule
    could not have been decided either, and is nobody's loss.

    Raises:
        UsageError: where it does.
    """
    if row.masks is None or row.turn.guide is None:
        return
    deciding = [0, *row.accepted.path][:num_kept]
    position = row.turn.guide.position
    stuck = next((depth for depth, slot in enumerate(deciding) if slot in row.masks.stuck), None)
    if stuck is not None:
        raise UsageError(
            f"the grammar goes nowhere: after {position + stuck} tokens it allows none of the teacher's, and no text "
            "is complete there; change the grammar"
        )
    if row.turn.processors is not None:
        refuse_empty(logits[deciding], position)


def refuse_empty(logits: torch.Tensor, position: int) -> None:
    """Refuses ``logits`` (R, V) of which a row has no finite one.

    Raises:
        UsageError: where processors forbade all that the grammar allowed.
    """
    if bool((logits.amax(dim=-1) == -torch.inf).any()):
        raise UsageError(f"after {position} tokens or a few more, {_CONFLICT}")


def advance_guided(row: RowInFlight, stop: StopDecision, phases: Phases) -> GuidedStep | None:
    """What the grammar of ``row`` allowed, and where it stands after what the step kept; None where it has none.

    Raises:
        UsageError: where the grammar forbids what was emitted.
    """
    guide = row.turn.guide
    if guide is None or row.masks is None:
        return None
    taken = phases.advance(guide, stop)
    if taken < stop.kept and phases.stop_on_violation:
        raise UsageError(_refusal(guide, stop.emitted[taken]))
    guide.settle()
    return GuidedStep(row.masks, guide.state())


_CONFLICT = (
    "processors, such as bad words or a least length, forbid all that the grammar allows; drop one of them, or change "
    "the grammar"
)


def _refusal(guide: Guide, token: int) -> str:
    return f"token {token} was decided after {guide.position} tokens, which the grammar forbids: {_CONFLICT}"
