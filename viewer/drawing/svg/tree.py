"""Draws a tree picture as an SVG string. Pure; knows neither records nor Streamlit.

Every text passes ``html_text``: token text is hostile input. Widths of labels are estimated from a monospace font.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from specscope.tracer.words.text import html_text, shorten
from specscope.viewer.drawing.svg.tree_layout import Place, TreeLayout, layout_tree
from specscope.viewer.drawing.svg.tree_picture import PictureNode, TreePicture

LABEL_HEIGHT = 23
CHARACTER = 7.3  # of the monospace font at 12 px
PADDING = 8  # of a label, left and right
MARGIN = 10
HEADER = 26
MIN_GAP, MAX_GAP = 20.0, 104.0
#: Characters of a label, tried one after another until a deep tree fits its width; tooltips have the whole text.
LABEL_LIMITS = (10, 8, 7, 6, 5, 4)
HEAD_WIDTH = 52.0  # of the words above a column
NARROW = 64.0  # columns closer than this are headed by their number alone
SIGN_WIDTH, FIRST_SIGN_WIDTH = 16, 46


class Point(NamedTuple):
    """A spot in the drawing."""

    x: float
    y: float


@dataclass(frozen=True)
class _Grid:
    """Columns and rows in pixels."""

    lefts: list[float]  # left edge of the labels, by column
    widths: list[float]  # widest label, by column
    row_height: float
    width: float
    height: float

    def left(self, place: Place) -> Point:
        """The middle of a label's left edge."""
        return Point(self.lefts[place.column], HEADER + MARGIN + LABEL_HEIGHT / 2 + place.row * self.row_height)


def label_width(label: str) -> float:
    """Width of a label's box; East Asian wide characters count twice, combining ones not at all."""
    cells = sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in label)
    return max(26.0, cells * CHARACTER + 2 * PADDING)


def draw_tree(picture: TreePicture, *, title: str, target_width: float = 860) -> str:
    """The whole drawing: an ``<svg>`` element that scales to the width it is given."""
    layout = layout_tree(picture.parents, picture.path, {node.slot for node in picture.nodes})
    picture, grid = _fitted(picture, layout, target_width)
    nodes = {node.slot: node for node in picture.nodes}
    parts = [*_header(layout, grid), *_edges(picture, layout, grid, nodes)]
    parts += [_node(node, grid.left(layout.places[node.slot])) for node in picture.nodes]
    if picture.bonus is not None and layout.bonus is not None:
        parts.append(_bonus(picture, grid.left(layout.bonus)))
    return (
        f'<svg class="ss-tree" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {grid.width:.0f} {grid.height:.0f}" '
        f'role="img" aria-label="{html_text(title)}" style="max-width:{grid.width * 1.15:.0f}px">'
        f"{''.join(parts)}</svg>"
    )


def _fitted(picture: TreePicture, layout: TreeLayout, target: float) -> tuple[TreePicture, _Grid]:
    """The picture with labels short enough for its depth, so that a deep tree fits without shrinking its letters."""
    grid = _grid(picture, layout, target)
    for limit in LABEL_LIMITS:
        if grid.width <= target * 1.02:
            break
        nodes = [replace(node, label=shorten(node.label, limit)) for node in picture.nodes]
        bonus = None if picture.bonus is None else replace(picture.bonus, label=shorten(picture.bonus.label, limit))
        picture = replace(picture, nodes=nodes, bonus=bonus)
        grid = _grid(picture, layout, target)
    return picture, grid


def _grid(picture: TreePicture, layout: TreeLayout, target: float) -> _Grid:
    nodes = {node.slot: node for node in picture.nodes}
    widths = [0.0] * layout.num_columns
    for slot, place in layout.places.items():
        widths[place.column] = max(widths[place.column], _node_width(nodes[slot]))
    if picture.bonus is not None and layout.bonus is not None:
        column = layout.bonus.column
        widths[column] = max(widths[column], label_width(picture.bonus.label) + 44)
    widths[-1] = max(widths[-1], HEAD_WIDTH)  # its head needs that room whatever the gaps are
    gaps = max(1, layout.num_columns - 1)
    gap = min(MAX_GAP, max(MIN_GAP, (target - 2 * MARGIN - sum(widths)) / gaps))
    lefts, x = [], float(MARGIN)
    for width in widths:
        lefts.append(x)
        x += width + gap
    row_height = 33.0 if layout.num_rows <= 14 else 28.0
    height = HEADER + 2 * MARGIN + LABEL_HEIGHT + max(0, layout.num_rows - 1) * row_height
    return _Grid(lefts, widths, row_height, max(x - gap + MARGIN, 320.0), height)


def _node_width(node: PictureNode) -> float:
    """The label and what is written beside it."""
    aside = 8.0 * len(f"+{node.hidden_below}") if node.hidden_below else 0.0
    return label_width(node.label) + _sign_width(node) + aside


def _sign_width(node: PictureNode) -> int:
    differs = (FIRST_SIGN_WIDTH if node.origin else SIGN_WIDTH) if node.divergent else 0
    return differs + (SIGN_WIDTH if node.violated else 0)


def _header(layout: TreeLayout, grid: _Grid) -> list[str]:
    narrow = any(right - left < NARROW for left, right in pairwise(grid.lefts))
    names = [
        "root",
        *(f"{depth}" if narrow and depth > 1 else f"depth {depth}" for depth in range(1, layout.num_columns)),
    ]
    return [
        f'<text class="head" x="{left:.1f}" y="{MARGIN + 6}">{name}</text>'
        for name, left in zip(names, grid.lefts, strict=True)
    ]


def _edges(picture: TreePicture, layout: TreeLayout, grid: _Grid, nodes: dict[int, PictureNode]) -> list[str]:
    """Grey ones first, so that the accepted path lies above them."""
    grey: list[str] = []
    blue: list[str] = []
    for node in picture.nodes:
        if node.slot == 0:
            continue
        parent = picture.parents[node.slot]
        parent = parent if parent in nodes and parent < node.slot else 0
        width = 1.2 + 4.0 * (node.probability if node.probability is not None else 0.1)
        start, end = layout.places[parent], layout.places[node.slot]
        line = _edge(grid, start, end, label_width(nodes[parent].label), width, on_path=node.accepted)
        (blue if node.accepted else grey).append(line)
    if picture.bonus is not None and layout.bonus is not None:
        last = picture.path[-1] if picture.path else 0
        start = layout.places[last]
        blue.append(_edge(grid, start, layout.bonus, label_width(nodes[last].label), 2.0, on_path=True))
    return grey + blue


def _edge(grid: _Grid, start: Place, end: Place, label: float, width: float, *, on_path: bool) -> str:
    a, b = grid.left(start), grid.left(end)
    x = a.x + label
    middle = (max(x, a.x + grid.widths[start.column]) + b.x) / 2
    return (
        f'<path class="edge{" on" if on_path else ""}" stroke-width="{width:.2f}" '
        f'd="M{x:.1f} {a.y:.1f}C{middle:.1f} {a.y:.1f} {middle:.1f} {b.y:.1f} {b.x:.1f} {b.y:.1f}"/>'
    )


def _node(node: PictureNode, at: Point) -> str:
    flags = {"on": node.accepted, "differs": node.divergent, "origin": node.origin and not node.accepted}
    flags["violated"] = node.violated
    classes = " ".join(["node", *(name for name, on in flags.items() if on)])
    width = label_width(node.label)
    right = at.x + width
    parts = [_box(at, width), _text(node.label, Point(at.x + PADDING, at.y + 3))]
    if node.probability is not None:
        length = max(1.5, (width - 8) * node.probability)
        parts.append(
            f'<rect class="bar" x="{at.x + 4:.1f}" y="{at.y + LABEL_HEIGHT / 2 - 4.4:.1f}" width="{length:.1f}" '
            'height="2.6" rx="1.3"/>'
        )
    if node.divergent:
        first = "<tspan> first</tspan>" if node.origin else ""
        parts.append(f'<text class="sign" x="{right + 4:.1f}" y="{at.y + 5:.1f}">≠{first}</text>')
    if node.violated:
        at_sign = right + (_sign_width(node) - SIGN_WIDTH)
        parts.append(f'<text class="sign" x="{at_sign + 4:.1f}" y="{at.y + 5:.1f}">✗</text>')
    right += _sign_width(node)
    if node.hidden_below:
        parts.append(f'<text class="aside" x="{right + 4:.1f}" y="{at.y + 4:.1f}">+{node.hidden_below}</text>')
    return f'<g class="{classes}" data-node="{html_text(node.name)}">{_title(node.tooltip)}{"".join(parts)}</g>'


def _bonus(picture: TreePicture, at: Point) -> str:
    assert picture.bonus is not None
    width = label_width(picture.bonus.label)
    return (
        f'<g class="bonus">{_title(picture.bonus.tooltip)}{_box(at, width)}'
        f"{_text(picture.bonus.label, Point(at.x + PADDING, at.y + 4))}"
        f'<text class="aside" x="{at.x + width + 6:.1f}" y="{at.y + 4:.1f}">bonus</text></g>'
    )


def _box(at: Point, width: float) -> str:
    return (
        f'<rect class="box" x="{at.x:.1f}" y="{at.y - LABEL_HEIGHT / 2:.1f}" width="{width:.1f}" '
        f'height="{LABEL_HEIGHT}" rx="5"/>'
    )


def _text(label: str, at: Point) -> str:
    return f'<text x="{at.x:.1f}" y="{at.y:.1f}">{html_text(label)}</text>'


def _title(lines: tuple[str, ...]) -> str:
    return "<title>" + "\n".join(html_text(line) for line in lines) + "</title>"
