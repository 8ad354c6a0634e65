"""What a grammar allowed in two aligned steps: where it stood, node by node, and where it went on to.

Two runs that are compared follow the same grammar, and aligned steps begin after the same tokens: so where a grammar
stands, and what it allows after a node's path, must be equal whatever the teacher's numbers are. Digests are compared
where the same code wrote both: another writer's may be over other bytes. Counts and places are compared always.
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
    by_logits: str | None  # None where it was not recorded


def compare_masks(pair: StepPair) -> Iterator[Difference]:
    """The first difference of where the grammar stood, of a node's mask, and of what the logits allowed there."""
    a, b = pair.a.step.guided, pair.b.step.guided
    if a is None or b is None:
        return
    for field in ("before", "returned"):
        ours, theirs = (_shown(getattr(side, field), pair) for side in (a, b))
        if None not in (ours, theirs) and ours != theirs:
            yield difference("verify", f"guided.{field}", ours, theirs, kind="structural", inputs_equal=True)
            return
    of_a, of_b = _by_slot(a, pair), _by_slot(b, pair)
    forbidden = _Allowed("forbidden", "forbidden")
    for key in pair.common if pair.trees_compared else pair.common[:1]:
        ours_here, theirs_here = of_a.get(pair.a.slots[key], forbidden), of_b.get(pair.b.slots[key], forbidden)
        for field, va, vb in (
            ("guided.mask", ours_here.by_grammar, theirs_here.by_grammar),
            ("guided.applied", ours_here.by_logits, theirs_here.by_logits),
        ):
            if None not in (va, vb) and va != vb:
                yield difference("verify", field, va, vb, kind="structural", inputs_equal=True, node=key)
                return


def compare_advance(pair: StepPair) -> Iterator[Difference]:
    """Where the grammar stands after what was kept, where both kept the same."""
    a, b = pair.a.step, pair.b.step
    if a.guided is None or b.guided is None or a.stop is None or b.stop is None:
        return
    same = (a.stop.emitted, a.stop.kept) == (b.stop.emitted, b.stop.kept)
    ours, theirs = _shown(a.guided.after, pair), _shown(b.guided.after, pair)
    if same and ours != theirs:
        yield difference("stop", "guided.after", ours, theirs, kind="structural", inputs_equal=True)


def _by_slot(guided: GuidedSection, pair: StepPair) -> dict[int, _Allowed]:
    """What every slot that is not forbidden comes to."""
    ends = {slot: _Allowed("ends the text", "ends the text") for slot in guided.ends}
    if not pair.same_engine:
        counted = zip(guided.slots, guided.num_allowed, strict=False)
        return {slot: _Allowed(f"{count} tokens", None) for slot, count in counted} | ends
    seen: list[str] | list[None] = guided.applied_digests or [None] * len(guided.slots)
    masks = zip(guided.slots, guided.mask_digests, seen, strict=False)
    return {slot: _Allowed(mask, by_logits) for slot, mask, by_logits in masks} | ends


def _shown(state: GrammarState | None, pair: StepPair) -> str | None:
    if state is None:
        return None
    return f"position {state.position} ({state.digest})" if pair.same_engine else f"position {state.position}"
