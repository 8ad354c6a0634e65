"""Invariants of guided decoding: what the grammar allowed along the tree, what became of it, and where it went on from.

What a mask holds is known by its digest alone: which tokens it allows, no record tells.
"""

from __future__ import annotations

import math

from specscope.schemas import GuidedSection
from specscope.tracer.oracle.invariants.base import Context, Invariant, committed_path, present

MOST_SHOWN = 8  # slots of a witness


def _is_guided(c: Context) -> bool:
    return c.manifest.grammar is not None or c.step.guided is not None


def _slots(c: Context) -> str | None:
    guided, parents = present(c.step.guided), present(c.step.tree).parents
    for name in ("num_allowed", "mask_digests", "applied_digests"):
        listed = getattr(guided, name)
        count = len(guided.slots) if listed is None else len(listed)
        if count != len(guided.slots):
            return f"{name}: got {count} entries, wanted {len(guided.slots)}, the slots that have a mask"
    listed = [*guided.slots, *guided.ends]
    if guided.slots[:1] != [0] or len(set(listed)) < len(listed) or any(not 0 <= s < len(parents) for s in listed):
        return (
            f"slots {guided.slots[:MOST_SHOWN]} and ends {guided.ends[:MOST_SHOWN]} of {len(parents)}, the root first"
        )
    masked = set(guided.slots)
    odd = next((slot for slot in listed if parents[slot] not in masked), None)
    if odd is not None:
        return f"slot {odd} is allowed, its parent {parents[odd]} has no mask"
    empty = next((s for s, count in zip(guided.slots, guided.num_allowed, strict=True) if count < 1), None)
    return None if empty is None else f"slot {empty} has a mask that allows nothing"


def _masks_applied(c: Context) -> str | None:
    guided = present(c.step.guided)
    masks = zip(guided.slots, guided.mask_digests, present(guided.applied_digests), strict=True)
    other = next(((slot, mask, seen) for slot, mask, seen in masks if mask != seen), None)
    if other is not None:
        return f"slot {other[0]}: the grammar allows {other[1]}, the logits {other[2]}"
    return _too_many(c, guided)


def _too_many(c: Context, guided: GuidedSection) -> str | None:
    """Whether more of the best logits of a slot are numbers than the grammar allows tokens there."""
    if c.step.verify is None:
        return None
    for slot, count in zip(guided.slots, guided.num_allowed, strict=True):
        finite = sum(math.isfinite(logit) for logit in c.step.verify.best_logits(slot))
        if finite > count:
            return f"slot {slot}: {finite} of the best tokens have a finite logit, the grammar allows {count}"
    return None


def _rolled_back(c: Context) -> str | None:
    guided = present(c.step.guided)
    before, returned = guided.before, present(guided.returned)
    if returned == before:
        return None
    return (
        f"it stood at position {before.position} ({before.digest}), and came back from the tree to "
        f"{returned.position} ({returned.digest})"
    )


def _path_allowed(c: Context) -> str | None:
    guided, path = present(c.step.guided), committed_path(c.step) or []
    masked, ends = set(guided.slots), set(guided.ends)
    for depth, slot in enumerate(path, start=1):
        if slot in ends:
            # What is accepted after the end is none of the grammar's business, and must be cut.
            kept = c.step.stop.kept if c.step.stop is not None else depth
            return None if kept <= depth else f"slot {slot} ends the text, and {kept - depth} tokens after it were kept"
        if slot not in masked:
            return f"slot {slot} was accepted, the grammar forbids its path"
    return None


def _continues(c: Context) -> str | None:
    before, left = present(c.step.guided).before, present(c.grammar_before)
    if before == left:
        return None
    return f"it stands at position {before.position} ({before.digest}), and was left at {left.position} ({left.digest})"


def _advances(c: Context) -> str | None:
    guided, kept = present(c.step.guided), present(c.step.stop).kept
    taken = guided.after.position - guided.before.position
    return None if taken == kept else f"it went on by {taken} tokens, {kept} were kept"


GUIDED: tuple[Invariant[Context], ...] = (
    Invariant(
        id="guided.slots",
        statement="the root has a mask, and so has the parent of every slot whose path the grammar allows",
        check=_slots,
        needs=("tree", "guided"),
        applies=_is_guided,
        phase="verify",
    ),
    Invariant(
        id="guided.masks-applied",
        statement="at every slot the logits allow what the grammar allows after its path, and nothing else",
        check=_masks_applied,
        needs=("guided.applied_digests",),
        applies=_is_guided,
        phase="verify",
    ),
    Invariant(
        id="guided.rolled-back",
        statement="the grammar comes back from the tree as it went",
        check=_rolled_back,
        needs=("guided.returned",),
        applies=_is_guided,
        phase="verify",
    ),
    Invariant(
        id="guided.path-allowed",
        statement="the grammar allows every accepted token after the ones before it",
        check=_path_allowed,
        needs=("guided", "accept"),
        applies=_is_guided,
        phase="accept",
    ),
    Invariant(
        id="guided.advances",
        statement="the grammar goes on by the tokens that were emitted and kept, and by no more",
        check=_advances,
        needs=("guided", "stop"),
        applies=_is_guided,
        phase="stop",
    ),
    Invariant(
        id="guided.state-continues",
        statement="the grammar stands where the last step, or the prompt's first token, left it",
        check=_continues,
        needs=("guided", "grammar_before"),
        applies=_is_guided,
        across_steps=True,
        phase="verify",
    ),
)
