"""The guided section of a step record: what the grammar allowed, and what the logits say that was made of it."""

from __future__ import annotations

from specscope.engine.guided.guide import GuideState, mask_digest
from specscope.engine.guided.logits import applied
from specscope.engine.loop.phases import StepResult
from specscope.engine.record.best import wide
from specscope.engine.record.host import array
from specscope.schemas import GrammarState, GuidedSection


def grammar_state(state: GuideState | None) -> GrammarState | None:
    """``state`` as it is recorded."""
    return None if state is None else GrammarState(**state._asdict())


def guided_section(result: StepResult) -> GuidedSection | None:
    """What the grammar of one row allowed; None where it has none."""
    guided, verification, row = result.guided, result.shared.verification, result.row
    before = verification.unguided_logits
    if guided is None or before is None:
        return None
    masks = guided.masks
    free, decisive = (array(wide(logits[row, masks.slots])) for logits in (before, verification.logits))
    seen = applied(free, decisive, masks.allowed)
    return GuidedSection(
        before=GrammarState(**masks.before._asdict()),
        returned=GrammarState(**masks.returned._asdict()),
        after=GrammarState(**guided.after._asdict()),
        slots=masks.slots,
        num_allowed=masks.allowed.sum(axis=1).tolist(),
        mask_digests=[mask_digest(allowed) for allowed in masks.allowed],
        applied_digests=[mask_digest(allowed) for allowed in seen],
        ends=masks.ends,
    )
