"""Along a tree and back: what a grammar allows at each slot. Pure functions of a guide and a tree; knows no torch.

Letters: N slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specscope.engine.guided.guide import Guide, GuideState


@dataclass(frozen=True, kw_only=True)
class SlotMasks:
    """What the grammar allows in one row's tree. Slots that are listed nowhere have a path that it forbids. Their
    logits, and those of slots where it is stuck, stay as they are: a token that was decided there must be refused."""

    slots: list[int]  # that have a mask, ascending
    allowed: NDArray[np.bool_]  # (len(slots), V) the tokens that may follow each of them
    ends: list[int]  # at which the text ends: their token is an end of text, where the grammar is complete
    stuck: list[int]  # after which it allows nothing, although the text is not complete
    before: GuideState  # at the root, before the walk
    returned: GuideState  # at the root, after it: the same, unless something went wrong on the way


def walk_tree(guide: Guide, tokens: list[int], parents: list[int]) -> SlotMasks:
    """Takes ``guide``, which has taken in the root's token, along every path of a tree and back.

    ``tokens`` and ``parents`` have an entry per slot, and the root is slot 0.
    """
    children: dict[int, list[int]] = {}
    for slot in range(1, len(tokens)):
        children.setdefault(parents[slot], []).append(slot)
    masks: dict[int, NDArray[np.bool_]] = {}
    ends: list[int] = []

    def visit(slot: int) -> None:
        masks[slot] = guide.allowed()
        for child in children.get(slot, []):
            if not guide.take(tokens[child]):
                continue
            if guide.has_ended:
                ends.append(child)
            else:
                visit(child)
            guide.back(1)

    before = guide.state()
    visit(0)
    open_slots = sorted(slot for slot, mask in masks.items() if mask.any())
    empty = np.zeros((0, len(masks[0])), dtype=np.bool_)
    return SlotMasks(
        slots=open_slots,
        allowed=np.stack([masks[slot] for slot in open_slots]) if open_slots else empty,
        ends=sorted(ends),
        stuck=sorted(masks.keys() - set(open_slots)),
        before=before,
        returned=guide.state(),
    )
