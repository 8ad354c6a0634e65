"""Draws the teacher's cache around a commit: the committed prefix, the tree's rows after it, and which were gathered
where. Knows records, no pages.

Above, the cache as verification left it: one row per slot. Below, as the commit left it: the root and the path moved up
to the end of the prefix, and the pending token, which has no row yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from specscope.schemas import CommitSection
from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.frames import attribute, kind_attribute
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.tree import label_width

WIDTH = 860.0
PREFIX = 150.0  # width of the prefix
TAIL_LEFT = PREFIX + 8
TAIL_TOP, TAIL_HEIGHT = 20, 20
KEPT_TOP, KEPT_HEIGHT = 84, 30
MAX_TAIL_CELL, MIN_KEPT_CELL = 26.0, 48.0
HEIGHT = KEPT_TOP + KEPT_HEIGHT + 20


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A row that was written."""

    row: int
    slot: int
    name: str
    label: str
    is_right: bool  # it comes from the slot that the accepted path says, and goes to the next free row
    x: float
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def draw_ribbon(view: StepView, commit: CommitSection) -> Markup:
    """The ribbon as an ``<svg>`` element."""
    num_slots = len(view.tokens)
    cell = min(MAX_TAIL_CELL, (WIDTH - TAIL_LEFT - 4) / max(1, num_slots))
    kept = _kept(view, commit)
    parts = [_labels(commit, num_slots), *_tail(view, cell, kept)]
    parts += [_gather(row, cell) for row in kept if row.slot < num_slots]
    parts += [_cell(row) for row in kept]
    end = kept[-1].x + kept[-1].width if kept else TAIL_LEFT
    if view.step.accept is not None:
        label = label_text(view.shown(view.step.accept.bonus_token))
        width = max(MIN_KEPT_CELL, label_width(label))
        parts.append(_pending(label, end + 8, width))
        end += 8 + width
    whole = max(WIDTH, end + 4)
    return markup(
        '<svg class="ss-ribbon" xmlns="http://www.w3.org/2000/svg" '
        'viewBox="0 0 {whole:.0f} {height}" role="img" aria-label="cache rows before and after the commit" '
        'style="max-width:{most:.0f}px;--ss-least:{least:.0f}px">{parts}</svg>',
        whole=whole,
        height=HEIGHT,
        most=whole * 1.15,
        least=whole * 0.92,
        parts=joined(parts),
    )


def _kept(view: StepView, commit: CommitSection) -> list[_Kept]:
    tokens = view.tokens
    accept = view.step.accept
    wanted = [0, *accept.path] if accept is not None else None
    kept = []
    x = TAIL_LEFT
    for at, (slot, row) in enumerate(zip(commit.source_slots, commit.destination_rows, strict=False)):
        known = 0 <= slot < len(tokens)
        label = label_text(view.shown(tokens[slot])) if known else f"slot {slot}"
        width = max(MIN_KEPT_CELL, label_width(label))
        is_right = row == commit.committed_before + at and (wanted is None or wanted[at : at + 1] == [slot])
        name = view.name(slot) if known else ""
        kept.append(_Kept(row=row, slot=slot, name=name, label=label, is_right=is_right, x=x, width=width))
        x += width
    return kept


def _labels(commit: CommitSection, num_slots: int) -> Markup:
    before = commit.committed_before
    last = before + num_slots - 1
    tail = f"tree tail: {counted(num_slots, 'row')}, {before} to {last}" if num_slots else "tree tail not recorded"
    below = KEPT_TOP + KEPT_HEIGHT + 15
    parts = [
        _prefix_box(TAIL_TOP, TAIL_HEIGHT),
        _prefix_box(KEPT_TOP, KEPT_HEIGHT),
        _label("prefixtext", 10, TAIL_TOP + 14, f"{before} rows committed"),
        _label("prefixtext", 10, KEPT_TOP + 20, f"{before} rows, untouched"),
        _label("note", 2, TAIL_TOP - 7, "after verify"),
        _label("note", TAIL_LEFT, TAIL_TOP - 7, tail),
        _label("note", 2, KEPT_TOP - 7, "after commit: row"),
        _label("note", 2, below, "from slot"),
    ]
    return joined(parts)


def _prefix_box(top: float, height: float) -> Markup:
    return markup(
        '<rect class="prefix" x="1" y="{top}" width="{width}" height="{height}" rx="4"/>',
        top=top,
        width=PREFIX,
        height=height,
    )


def _label(kind: str, x: float, y: float, text: str) -> Markup:
    return markup(
        '<text{kind} x="{x}" y="{y}">{text}</text>', kind=kind_attribute(kind), x=x, y=y, text=html_text(text)
    )


def _tail(view: StepView, cell: float, kept: list[_Kept]) -> list[Markup]:
    taken = {row.slot for row in kept}
    gap = 1.0 if cell > 5 else 0.3
    return [
        markup(
            '<rect{kind}{node} x="{x:.2f}" y="{top}" width="{width:.2f}" height="{height}"/>',
            kind=kind_attribute(_slot_kind(view, slot, taken)),
            node=attribute("data-node", view.name(slot)),
            x=TAIL_LEFT + slot * cell,
            top=TAIL_TOP,
            width=cell - gap,
            height=TAIL_HEIGHT,
        )
        for slot in range(len(view.tokens))
    ]


def _slot_kind(view: StepView, slot: int, taken: set[int]) -> str:
    return "slot" + (" taken" if slot in taken else "") + (" wrong" if slot in view.marks.violated else "")


def _gather(row: _Kept, cell: float) -> Markup:
    top, bottom = TAIL_TOP + TAIL_HEIGHT + 1, KEPT_TOP - 19
    return markup(
        '<path{kind} d="M{start:.1f} {top}C{start:.1f} {middle} {end:.1f} {middle} {end:.1f} {bottom}"/>',
        kind=kind_attribute("gather" if row.is_right else "gather wrong"),
        start=TAIL_LEFT + (row.slot + 0.5) * cell,
        end=row.middle,
        top=top,
        middle=(top + bottom) / 2,
        bottom=bottom,
    )


def _cell(row: _Kept) -> Markup:
    sign = "" if row.is_right else "✗ "
    return markup(
        '<g{kind}{node}><rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="4"/>'
        "{label}{to}{source}</g>",
        kind=kind_attribute("kept" if row.is_right else "kept wrong"),
        node=attribute("data-node", row.name) if row.name else NOTHING,
        x=row.x + 1,
        top=KEPT_TOP,
        width=row.width - 2,
        height=KEPT_HEIGHT,
        label=_centred("", row.middle, KEPT_TOP + 20, row.label),
        to=_centred("note", row.middle, KEPT_TOP - 7, str(row.row)),
        source=_centred("note", row.middle, KEPT_TOP + KEPT_HEIGHT + 15, f"{sign}{row.slot}"),
    )


def _pending(label: str, x: float, width: float) -> Markup:
    middle = x + width / 2
    return markup(
        '<g class="pending"><rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="4"/>'
        "{label}{word}</g>",
        x=x,
        top=KEPT_TOP + 1,
        width=width,
        height=KEPT_HEIGHT - 2,
        label=_centred("", middle, KEPT_TOP + 20, label),
        word=_centred("note", middle, KEPT_TOP - 7, "pending"),
    )


def _centred(kind: str, x: float, y: float, text: str) -> Markup:
    return markup(
        '<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>',
        kind=kind_attribute(kind),
        x=x,
        y=y,
        text=html_text(text),
    )
