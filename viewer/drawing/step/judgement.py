"""What became of the invariants of one step, as drawings are given it. Pure: they were judged elsewhere."""

from __future__ import annotations

import re
from typing import NamedTuple

from specscope.schemas import Step
from specscope.viewer.drawing.step_view import StepView

LONGEST_PLACE = 80  # characters of a witness in which it says where
#: Of a witness, where it names slots; a row of the mask is a slot, a row of the cache is not.
_SLOTS = re.compile(r"\bslot (\d+)")
_MASK_ROW = re.compile(r"\brow (\d+)")


class Judgement(NamedTuple):
    """The invariants of one step, by what became of them."""

    passed: list[tuple[str, str]]  # id, what holds
    violated: list[tuple[str, str]]  # id, witness
    skipped: list[tuple[str, str]]  # id, what is missing to judge it


class JudgedStep(NamedTuple):
    """A step to be drawn together with what became of its invariants."""

    view: StepView
    judgement: Judgement


def violated_slots(judgement: Judgement, step: Step) -> frozenset[int]:
    """The slots of ``step`` that the witnesses of its violated invariants begin with."""
    size = len(step.tree.tokens) if step.tree is not None else 0
    named = set()
    for name, witness in judgement.violated:
        start = witness[:LONGEST_PLACE]
        place = _SLOTS.search(start) or (_MASK_ROW.search(start) if name.startswith("tensors.") else None)
        if place is not None and len(place.group(1)) < 10:
            named.add(int(place.group(1)))
    return frozenset(slot for slot in named if slot < size)
