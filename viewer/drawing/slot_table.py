"""The slots of a step as a table: one row a slot. Knows records, no pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specscope.schemas import Step
from specscope.tracer.text import html_text
from specscope.tracer.tokens import TokenTexts
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.frames import row, table
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.node_words import draft_probability

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
TEXTS = ("token", "teacher wants", "second")


def slot_columns(step: Step, texts: TokenTexts) -> dict[str, list[Any]]:
    """One entry a real slot in every column; None where something was not recorded."""
    tree, tensors, verify = step.tree, step.tensors, step.verify
    if tree is None:
        return {}
    slots = range(len(tree.tokens))
    path = set(step.accept.path) if step.accept is not None else set()
    tokens, logits = (verify.top_tokens or [], verify.top_logits or []) if verify else ([], [])
    best = [_ranked(tokens, slot, 0) for slot in slots]
    second = [_ranked(tokens, slot, 1) for slot in slots]
    return {
        "slot": list(slots),
        "token": [texts.shown(token) for token in tree.tokens],
        "id": list(tree.tokens),
        "parent": [_at(tree.parents, slot) for slot in slots],
        "depth": [_at(tree.depths, slot) for slot in slots],
        "position": [_at(tensors.positions if tensors else [], slot) for slot in slots],
        "draft p": [draft_probability(step, slot) for slot in slots],
        "accepted": [_accepted(step, slot, path) for slot in slots],
        "teacher wants": [_shown(texts, token) for token in best],
        "logit": [_ranked(logits, slot, 0) for slot in slots],
        "second": [_shown(texts, token) for token in second],
        "its logit": [_ranked(logits, slot, 1) for slot in slots],
    }


def slot_table(step: Step, texts: TokenTexts, marks: NodeMarks) -> str:
    """The table."""
    found = slot_columns(step, texts)
    if not found:
        return note("info", "This step records no slots")
    lines, classes = [], ["num" if name in NUMBERS else "ss-mono" if name in TEXTS else "" for name in found]
    for slot in found["slot"]:
        differs = ' class="differs"' if slot in marks.divergent else ""
        cells = [_cell(name, column[slot]) for name, column in found.items()]
        lines.append(row(cells, classes, f' data-node="{html_text(marks.name(slot))}"{differs}'))
    return table(list(found), lines, numbers=NUMBERS)


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


def _ranked(rows: Sequence[Sequence[Any]], slot: int, rank: int) -> Any:
    return rows[slot][rank] if slot < len(rows) and rank < len(rows[slot]) else None


def _shown(texts: TokenTexts, token: int | None) -> str | None:
    return None if token is None else texts.shown(token)
