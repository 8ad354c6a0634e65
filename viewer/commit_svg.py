"""Draws a commit as a ribbon of cache rows. Pure; knows neither records nor Streamlit.

The committed prefix, then one cell a row written (which slot it came from), then the bonus token, which has no row yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from specscope.tracer.text import html_text
from specscope.viewer import palette
from specscope.viewer.tree_svg import label_width

CELL_TOP, CELL_HEIGHT = 22, 30
PREFIX_WIDTH = 150.0

STYLE = f"""
text {{ font: 12px {palette.MONOSPACE}; fill: {palette.PAPER}; unicode-bidi: isolate; white-space: pre }}
.note {{ font: 11px {palette.SANS}; fill: {palette.MUTED} }}
.prefix {{ fill: {palette.SURFACE}; stroke: {palette.LINE} }}
.prefixtext {{ font: 12px {palette.SANS}; fill: {palette.INK} }}
.cell {{ fill: {palette.ACCEPTED}; stroke: {palette.PAPER}; stroke-width: 2 }}
.bonus {{ fill: {palette.PAPER}; stroke: {palette.ACCEPTED}; stroke-width: 2; stroke-dasharray: 2 2 }}
.bonustext {{ fill: {palette.ACCEPTED}; font-weight: 600 }}
"""


@dataclass(frozen=True)
class RibbonCell:
    """A row that was written."""

    row: int
    slot: int
    label: str


def draw_ribbon(committed_before: int, cells: list[RibbonCell], bonus: str | None) -> str:
    """The ribbon as an ``<svg>`` element; ``bonus`` is the pending token's label, where it is known."""
    parts = [
        f'<rect class="prefix" x="1" y="{CELL_TOP}" width="{PREFIX_WIDTH}" height="{CELL_HEIGHT}" rx="4"/>',
        f'<text class="prefixtext" x="12" y="{CELL_TOP + 20}">{committed_before} rows committed</text>',
        f'<text class="note" x="2" y="{CELL_TOP - 8}">cache row</text>',
        f'<text class="note" x="2" y="{CELL_TOP + CELL_HEIGHT + 15}">from slot</text>',
    ]
    x = PREFIX_WIDTH + 3
    for cell in cells:
        width = max(48.0, label_width(cell.label))
        parts += [
            f'<rect class="cell" x="{x:.1f}" y="{CELL_TOP}" width="{width:.1f}" height="{CELL_HEIGHT}" rx="4"/>',
            _centred("", x + width / 2, CELL_TOP + 20, cell.label),
            _centred("note", x + width / 2, CELL_TOP - 8, str(cell.row)),
            _centred("note", x + width / 2, CELL_TOP + CELL_HEIGHT + 15, str(cell.slot)),
        ]
        x += width
    if bonus is not None:
        x += 8
        width = max(48.0, label_width(bonus))
        box = f'y="{CELL_TOP + 1}" width="{width:.1f}" height="{CELL_HEIGHT - 2}" rx="4"'
        parts += [
            f'<rect class="bonus" x="{x:.1f}" {box}/>',
            _centred("bonustext", x + width / 2, CELL_TOP + 20, bonus),
            _centred("note", x + width / 2, CELL_TOP - 8, "pending"),
        ]
        x += width
    width, height = max(x + 4, 420.0), CELL_TOP + CELL_HEIGHT + 22
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        'aria-label="rows written to the cache" '
        f'style="display:block;width:100%;max-width:{width:.0f}px;height:auto"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


def _centred(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{html_text(text)}</text>'
