"""Draws the teacher's cache around a commit: the committed prefix, the tree's rows behind it, and which were gathered
where. Knows records, no pages.

Above, the cache as verification left it: one row a slot. Below, as the commit left it: the root and the path moved up
behind the prefix, and the pending token, which has no row yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from specscope.schemas import CommitSection, Step
from specscope.tracer.words.text import html_text, shorten
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.svg.tree import label_width
from specscope.viewer.drawing.svg.tree_picture import LABEL_LIMIT

WIDTH = 860.0
PREFIX = 150.0  # width of the prefix
TAIL_LEFT = PREFIX + 8
TAIL_TOP, TAIL_HEIGHT = 20, 20
KEPT_TOP, KEPT_HEIGHT = 84, 30
MAX_TAIL_CELL, MIN_KEPT_CELL = 26.0, 48.0
HEIGHT = KEPT_TOP + KEPT_HEIGHT + 20


@dataclass(frozen=True)
class _Kept:
    """A row that was written."""

    row: int
    slot: int
    name: str
    label: str
    is_right: bool  # it comes from the slot that the accepted path says, and goes to the next free row
    x: float
    width: float


def draw_ribbon(step: Step, commit: CommitSection, texts: TokenTexts, marks: NodeMarks) -> str:
    """The ribbon as an ``<svg>`` element."""
    tokens = step.tree.tokens if step.tree is not None else []
    cell = min(MAX_TAIL_CELL, (WIDTH - TAIL_LEFT - 4) / max(1, len(tokens)))
    kept = _kept(step, commit, texts, marks)
    parts = [*_labels(commit, len(tokens)), *_tail(len(tokens), cell, kept, marks)]
    parts += [_gather(one, cell) for one in kept if one.slot < len(tokens)]
    parts += [_cell(one) for one in kept]
    end = kept[-1].x + kept[-1].width if kept else TAIL_LEFT
    if step.accept is not None:
        label = shorten(texts.shown(step.accept.bonus_token), LABEL_LIMIT)
        width = max(MIN_KEPT_CELL, label_width(label))
        parts.append(_pending(label, end + 8, width))
        end += 8 + width
    whole = max(WIDTH, end + 4)
    return (
        f'<svg class="ss-ribbon" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0f} {HEIGHT}" role="img" '
        f'aria-label="cache rows before and after the commit" style="max-width:{whole * 1.15:.0f}px">'
        f"{''.join(parts)}</svg>"
    )


def _kept(step: Step, commit: CommitSection, texts: TokenTexts, marks: NodeMarks) -> list[_Kept]:
    tokens = step.tree.tokens if step.tree is not None else []
    wanted = [0, *step.accept.path] if step.accept is not None else None
    found, x = [], TAIL_LEFT
    for at, (slot, row) in enumerate(zip(commit.source_slots, commit.destination_rows, strict=False)):
        known = 0 <= slot < len(tokens)
        label = shorten(texts.shown(tokens[slot]) if known else f"slot {slot}", LABEL_LIMIT)
        width = max(MIN_KEPT_CELL, label_width(label))
        right = row == commit.committed_before + at and (wanted is None or wanted[at : at + 1] == [slot])
        found.append(_Kept(row, slot, marks.name(slot) if known else "", label, right, x, width))
        x += width
    return found


def _labels(commit: CommitSection, num_slots: int) -> list[str]:
    before = commit.committed_before
    tail = (
        f"tree tail: {num_slots} rows, {before} to {before + num_slots - 1}" if num_slots else "tree tail not recorded"
    )
    boxes = (
        f'<rect class="prefix" x="1" y="{top}" width="{PREFIX}" height="{height}" rx="4"/>'
        for top, height in ((TAIL_TOP, TAIL_HEIGHT), (KEPT_TOP, KEPT_HEIGHT))
    )
    return [
        *boxes,
        f'<text class="prefixtext" x="10" y="{TAIL_TOP + 14}">{before} rows committed</text>',
        f'<text class="prefixtext" x="10" y="{KEPT_TOP + 20}">{before} rows, untouched</text>',
        f'<text class="note" x="2" y="{TAIL_TOP - 7}">after verify</text>',
        f'<text class="note" x="{TAIL_LEFT}" y="{TAIL_TOP - 7}">{tail}</text>',
        f'<text class="note" x="2" y="{KEPT_TOP - 7}">after commit: row</text>',
        f'<text class="note" x="2" y="{KEPT_TOP + KEPT_HEIGHT + 15}">from slot</text>',
    ]


def _tail(num_slots: int, cell: float, kept: list[_Kept], marks: NodeMarks) -> list[str]:
    taken = {one.slot for one in kept}
    gap = 1.0 if cell > 5 else 0.3
    return [
        f'<rect class="{_slot_kind(slot, taken, marks)}" data-node="{html_text(marks.name(slot))}" '
        f'x="{TAIL_LEFT + slot * cell:.2f}" y="{TAIL_TOP}" width="{cell - gap:.2f}" height="{TAIL_HEIGHT}"/>'
        for slot in range(num_slots)
    ]


def _slot_kind(slot: int, taken: set[int], marks: NodeMarks) -> str:
    return "slot" + (" taken" if slot in taken else "") + (" wrong" if slot in marks.violated else "")


def _gather(one: _Kept, cell: float) -> str:
    start, end = TAIL_LEFT + (one.slot + 0.5) * cell, one.x + one.width / 2
    top, bottom = TAIL_TOP + TAIL_HEIGHT + 1, KEPT_TOP - 19
    middle = (top + bottom) / 2
    kind = "gather" if one.is_right else "gather wrong"
    return f'<path class="{kind}" d="M{start:.1f} {top}C{start:.1f} {middle} {end:.1f} {middle} {end:.1f} {bottom}"/>'


def _cell(one: _Kept) -> str:
    middle = one.x + one.width / 2
    kind, sign = ("kept", "") if one.is_right else ("kept wrong", "✗ ")
    node = f' data-node="{html_text(one.name)}"' if one.name else ""
    return (
        f'<g class="{kind}"{node}><rect x="{one.x + 1:.1f}" y="{KEPT_TOP}" width="{one.width - 2:.1f}" '
        f'height="{KEPT_HEIGHT}" rx="4"/>{_centred("", middle, KEPT_TOP + 20, one.label)}'
        f"{_centred('note', middle, KEPT_TOP - 7, str(one.row))}"
        f"{_centred('note', middle, KEPT_TOP + KEPT_HEIGHT + 15, f'{sign}{one.slot}')}</g>"
    )


def _pending(label: str, x: float, width: float) -> str:
    middle = x + width / 2
    return (
        f'<g class="pending"><rect x="{x:.1f}" y="{KEPT_TOP + 1}" width="{width:.1f}" height="{KEPT_HEIGHT - 2}" '
        'rx="4"/>'
        f"{_centred('', middle, KEPT_TOP + 20, label)}{_centred('note', middle, KEPT_TOP - 7, 'pending')}</g>"
    )


def _centred(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{html_text(text)}</text>'
