"""The slots of a step as a table: one row a slot. Knows records, no pages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from specscope.schemas import Step
from specscope.tracer.words.text import html_text
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import row, table
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.words.nodes import Wanted, draft_probability, teacher_wants

#: Columns whose values are numbers, and how each is written.
NUMBERS = {
    "slot": "d",
    "id": "d",
    "parent": "d",
    "depth": "d",
    "position": "d",
    "draft p": ".3f",
    "logit": ".3f",
    "its logit": ".3f",
}
MOST_LISTED = 1024
BROKEN = '<b class="ss-first">✗</b>'  # beside a slot that a violated invariant names
TEXTS = ("token", "teacher wants", "second")


def slot_columns(step: Step, texts: TokenTexts) -> dict[str, list[Any]]:
    """One entry a real slot in every column; None where something was not recorded."""
    tree, tensors = step.tree, step.tensors
    if tree is None:
        return {}
    slots = range(len(tree.tokens))
    path = set(step.accept.path) if step.accept is not None else set()
    wanted = [teacher_wants(step, slot) for slot in slots]
    best, second = [_at(found, 0) for found in wanted], [_at(found, 1) for found in wanted]
    return {
        "slot": list(slots),
        "token": [texts.shown(token) for token in tree.tokens],
        "id": list(tree.tokens),
        "parent": [_at(tree.parents, slot) for slot in slots],
        "depth": [_at(tree.depths, slot) for slot in slots],
        "position": [_at(tensors.positions if tensors else [], slot) for slot in slots],
        "draft p": [draft_probability(step, slot) for slot in slots],
        "accepted": [_accepted(step, slot, path) for slot in slots],
        "teacher wants": [_shown(texts, found) for found in best],
        "logit": [_logit(found) for found in best],
        "second": [_shown(texts, found) for found in second],
        "its logit": [_logit(found) for found in second],
    }


def slot_table(step: Step, texts: TokenTexts, marks: NodeMarks) -> str:
    """The table."""
    found = slot_columns(step, texts)
    if not found:
        return note("info", "This step records no slots")
    lines, classes = [], ["num" if name in NUMBERS else "ss-mono" if name in TEXTS else "" for name in found]
    size = len(found["slot"])
    listed = _listed(step, size, marks)
    for slot in listed:
        kinds = [name for name, slots in (("differs", marks.divergent), ("violated", marks.violated)) if slot in slots]
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        cells = [_cell(name, column[slot]) for name, column in found.items()]
        cells[0] = f"{BROKEN} {cells[0]}" if slot in marks.violated else cells[0]
        lines.append(row(cells, classes, f' data-node="{html_text(marks.name(slot))}"{kind}'))
    words = f"Listed are the first {MOST_LISTED:,} of {size:,} slots, and those that are accepted or differ."
    return table(list(found), lines, numbers=NUMBERS) + (quiet(words) if len(listed) < size else "")


def _listed(step: Step, size: int, marks: NodeMarks) -> list[int]:
    """The slots that are listed: all, where a browser can bear them."""
    path = step.accept.path if step.accept is not None else []
    told = (slot for slot in [*path, *sorted(marks.divergent | marks.violated)] if 0 <= slot < size)
    return sorted({*range(min(size, MOST_LISTED)), *islice(told, MOST_LISTED)})


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value:{NUMBERS[name]}}" if name in NUMBERS else html_text(value)


def _accepted(step: Step, slot: int, path: set[int]) -> str:
    if step.accept is None:
        return "?"
    return "root" if slot == 0 else "✓ yes" if slot in path else "–"


def _at(values: Sequence[Any], slot: int) -> Any:
    return values[slot] if slot < len(values) else None


def _logit(found: Wanted | None) -> float | None:
    return None if found is None else found.logit


def _shown(texts: TokenTexts, found: Wanted | None) -> str | None:
    return None if found is None else texts.shown(found.token)
