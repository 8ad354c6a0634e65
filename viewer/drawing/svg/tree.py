"""Draws a tree picture as SVG. Pure; knows neither records nor Streamlit.

Every text passes ``html_text``: token text is hostile input. Widths of labels are estimated from a monospace font.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.frames import attribute, kind_attribute
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.svg.tree_layout import Place, TreeLayout, layout_tree
from specscope.viewer.drawing.svg.tree_picture import Bonus, PictureNode, TreePicture

LABEL_HEIGHT = 23
CHARACTER = 7.3  # of the monospace font at 12 px
PADDING = 8  # of a label, left and right
MARGIN = 10
HEADER = 26
MIN_GAP, MAX_GAP = 20.0, 104.0
#: Characters of a label, tried one after another until a deep tree fits its width; tooltips have the whole text.
LABEL_LIMITS = (10, 8, 7, 6, 5, 4)
HEAD_WIDTH = 52.0  # of the words above a column
NARROW = 64.0  # columns closer than this are headed by only their number
SIGN_WIDTH, FIRST_SIGN_WIDTH = 16, 46


class Point(NamedTuple):
    """A spot in the drawing."""

    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
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


def draw_tree(picture: TreePicture, *, title: str, target_width: float = 860) -> Markup:
    """The whole drawing: an ``<svg>`` element that scales to the width it is given."""
    layout = layout_tree(picture.parents, picture.path, {node.slot for node in picture.nodes})
    picture, grid = _fitted(picture, layout, target_width)
    parts = [*_header(layout, grid), *_edges(picture, layout, grid)]
    parts += [_node(node, grid.left(layout.places[node.slot])) for node in picture.nodes]
    if picture.bonus is not None and layout.bonus is not None:
        parts.append(_bonus(picture.bonus, grid.left(layout.bonus)))
    return markup(
        '<svg class="ss-tree" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="{title}" style="max-width:{most:.0f}px">{parts}</svg>',
        width=grid.width,
        height=grid.height,
        title=html_text(title),
        most=grid.width * 1.15,
        parts=joined(parts),
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
    widths = _column_widths(picture, layout)
    gaps = max(1, layout.num_columns - 1)
    gap = min(MAX_GAP, max(MIN_GAP, (target - 2 * MARGIN - sum(widths)) / gaps))
    lefts = []
    x = float(MARGIN)
    for width in widths:
        lefts.append(x)
        x += width + gap
    row_height = 33.0 if layout.num_rows <= 14 else 28.0
    return _Grid(
        lefts=lefts,
        widths=widths,
        row_height=row_height,
        width=max(x - gap + MARGIN, 320.0),
        height=HEADER + 2 * MARGIN + LABEL_HEIGHT + max(0, layout.num_rows - 1) * row_height,
    )


def _column_widths(picture: TreePicture, layout: TreeLayout) -> list[float]:
    nodes = {node.slot: node for node in picture.nodes}
    widths = [0.0] * layout.num_columns
    for slot, place in layout.places.items():
        widths[place.column] = max(widths[place.column], _node_width(nodes[slot]))
    if picture.bonus is not None and layout.bonus is not None:
        column = layout.bonus.column
        widths[column] = max(widths[column], label_width(picture.bonus.label) + 44)
    widths[-1] = max(widths[-1], HEAD_WIDTH)  # its head needs that room whatever the gaps are
    return widths


def _node_width(node: PictureNode) -> float:
    """The label and what is written beside it."""
    aside = 8.0 * len(f"+{node.hidden_below}") if node.hidden_below else 0.0
    return label_width(node.label) + _sign_width(node) + aside


def _sign_width(node: PictureNode) -> int:
    differs = (FIRST_SIGN_WIDTH if node.origin else SIGN_WIDTH) if node.divergent else 0
    return differs + (SIGN_WIDTH if node.violated else 0)


def _header(layout: TreeLayout, grid: _Grid) -> list[Markup]:
    narrow = any(right - left < NARROW for left, right in pairwise(grid.lefts))
    depths = range(1, layout.num_columns)
    names = ["root", *(f"{depth}" if narrow and depth > 1 else f"depth {depth}" for depth in depths)]
    return [
        markup('<text class="head" x="{x:.1f}" y="{y}">{name}</text>', x=left, y=MARGIN + 6, name=html_text(name))
        for name, left in zip(names, grid.lefts, strict=True)
    ]


def _edges(picture: TreePicture, layout: TreeLayout, grid: _Grid) -> list[Markup]:
    """Grey ones first, so that the accepted path lies above them."""
    nodes = {node.slot: node for node in picture.nodes}
    grey: list[Markup] = []
    blue: list[Markup] = []
    for node in picture.nodes:
        if node.slot == 0:
            continue
        parent = picture.parents[node.slot]
        parent = parent if parent in nodes and parent < node.slot else 0
        start = _exit_of(nodes[parent], layout.places[parent], grid)
        width = 1.2 + 4.0 * (node.probability if node.probability is not None else 0.1)
        line = _edge(start, grid.left(layout.places[node.slot]), width, on_path=node.accepted)
        (blue if node.accepted else grey).append(line)
    if picture.bonus is not None and layout.bonus is not None:
        last = picture.path[-1] if picture.path else 0
        start = _exit_of(nodes[last], layout.places[last], grid)
        blue.append(_edge(start, grid.left(layout.bonus), 2.0, on_path=True))
    return grey + blue


class _Exit(NamedTuple):
    """Where edges leave a node."""

    at: Point  # the middle of its label's right edge
    column_end: float  # where the widest label of its column ends


def _exit_of(node: PictureNode, place: Place, grid: _Grid) -> _Exit:
    left = grid.left(place)
    return _Exit(Point(left.x + label_width(node.label), left.y), left.x + grid.widths[place.column])


def _edge(start: _Exit, end: Point, width: float, *, on_path: bool) -> Markup:
    return markup(
        '<path{kind} stroke-width="{width:.2f}" '
        'd="M{x:.1f} {y:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {end_y:.1f} {end_x:.1f} {end_y:.1f}"/>',
        kind=kind_attribute("edge on" if on_path else "edge"),
        width=width,
        x=start.at.x,
        y=start.at.y,
        middle=(max(start.at.x, start.column_end) + end.x) / 2,
        end_x=end.x,
        end_y=end.y,
    )


def _node(node: PictureNode, at: Point) -> Markup:
    flags = {
        "on": node.accepted,
        "differs": node.divergent,
        "origin": node.origin and not node.accepted,
        "violated": node.violated,
    }
    width = label_width(node.label)
    return markup(
        "<g{kind}{name}><title>{tooltip}</title>{box}{label}{probability}{aside}</g>",
        kind=kind_attribute(" ".join(["node", *(name for name, is_on in flags.items() if is_on)])),
        name=attribute("data-node", node.name),
        tooltip=_lines(node.tooltip),
        box=_box(at, width),
        label=_text(node.label, Point(at.x + PADDING, at.y + 3)),
        probability=NOTHING if node.probability is None else _probability_bar(node.probability, at, width),
        aside=_asides(node, Point(at.x + width, at.y)),
    )


def _probability_bar(probability: float, at: Point, width: float) -> Markup:
    return markup(
        '<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="2.6" rx="1.3"/>',
        x=at.x + 4,
        y=at.y + LABEL_HEIGHT / 2 - 4.4,
        width=max(1.5, (width - 8) * probability),
    )


def _asides(node: PictureNode, right: Point) -> Markup:
    """What is written beside a label, whose right edge is ``right``: signs, and how many nodes are folded below."""
    parts = []
    if node.divergent:
        first = markup("<tspan> first</tspan>") if node.origin else NOTHING
        parts.append(_aside("sign", Point(right.x + 4, right.y + 5), joined([markup("≠"), first])))
    after_signs = right.x + _sign_width(node)
    if node.violated:
        parts.append(_aside("sign", Point(after_signs - SIGN_WIDTH + 4, right.y + 5), markup("✗")))
    if node.hidden_below:
        parts.append(_aside("aside", Point(after_signs + 4, right.y + 4), html_text(f"+{node.hidden_below}")))
    return joined(parts)


def _bonus(bonus: Bonus, at: Point) -> Markup:
    width = label_width(bonus.label)
    return markup(
        '<g class="bonus"><title>{tooltip}</title>{box}{label}{aside}</g>',
        tooltip=_lines(bonus.tooltip),
        box=_box(at, width),
        label=_text(bonus.label, Point(at.x + PADDING, at.y + 4)),
        aside=_aside("aside", Point(at.x + width + 6, at.y + 4), markup("bonus")),
    )


def _box(at: Point, width: float) -> Markup:
    return markup(
        '<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="5"/>',
        x=at.x,
        y=at.y - LABEL_HEIGHT / 2,
        width=width,
        height=LABEL_HEIGHT,
    )


def _text(label: str, at: Point) -> Markup:
    return markup('<text x="{x:.1f}" y="{y:.1f}">{label}</text>', x=at.x, y=at.y, label=html_text(label))


def _aside(kind: str, at: Point, content: Markup) -> Markup:
    return markup(
        '<text{kind} x="{x:.1f}" y="{y:.1f}">{content}</text>',
        kind=kind_attribute(kind),
        x=at.x,
        y=at.y,
        content=content,
    )


def _lines(lines: tuple[str, ...]) -> Markup:
    return joined((html_text(line) for line in lines), separator=markup("\n"))
