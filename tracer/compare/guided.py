"""What a grammar allowed in two aligned steps: where it stood, node by node, and where it went on to.

Two runs that are compared follow the same grammar, and aligned steps begin after the same tokens: so where a grammar
stands, and what it allows after a node's path, must be equal whatever the teacher's numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from specscope.schemas import GrammarState, GuidedSection
from specscope.schemas.verdict import Difference
from specscope.tracer.compare.steps import StepPair, difference


class _Allowed(NamedTuple):
    """What a slot's path comes to."""

    by_grammar: str
    by_logits: str


def compare_masks(pair: StepPair) -> Iterator[Difference]:
    """The first difference of where the grammar stood, of a node's mask, and of what the logits allowed there."""
    a, b = pair.a.step.guided, pair.b.step.guided
    if a is None or b is None:
        return
    for field in ("before", "returned"):
        ours, theirs = getattr(a, field), getattr(b, field)
        if ours != theirs:
            yield difference(
                "verify", f"guided.{field}", _shown(ours), _shown(theirs), kind="structural", inputs_equal=True
            )
            return
    of_a, of_b = _by_slot(a), _by_slot(b)
    forbidden = _Allowed("forbidden", "forbidden")
    for key in pair.common if pair.trees_compared else pair.common[:1]:
        ours_here, theirs_here = of_a.get(pair.a.slots[key], forbidden), of_b.get(pair.b.slots[key], forbidden)
        for field, va, vb in (
            ("guided.mask", ours_here.by_grammar, theirs_here.by_grammar),
            ("guided.applied", ours_here.by_logits, theirs_here.by_logits),
        ):
            if va != vb:
                yield difference("verify", field, va, vb, kind="structural", inputs_equal=True, node=key)
                return


def compare_advance(pair: StepPair) -> Iterator[Difference]:
    """Where the grammar stands after what was kept, where both kept the same."""
    a, b = pair.a.step, pair.b.step
    if a.guided is None or b.guided is None or a.stop is None or b.stop is None:
        return
    same = (a.stop.emitted, a.stop.kept) == (b.stop.emitted, b.stop.kept)
    if same and a.guided.after != b.guided.after:
        ours, theirs = _shown(a.guided.after), _shown(b.guided.after)
        yield difference("stop", "guided.after", ours, theirs, kind="structural", inputs_equal=True)


def _by_slot(guided: GuidedSection) -> dict[int, _Allowed]:
    """What every slot that is not forbidden comes to."""
    masks = zip(guided.slots, guided.mask_digests, guided.applied_digests, strict=False)
    ends = {slot: _Allowed("ends the text", "ends the text") for slot in guided.ends}
    return {slot: _Allowed(mask, seen) for slot, mask, seen in masks} | ends


def _shown(state: GrammarState) -> str:
    return f"position {state.position} ({state.digest})"
