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
from specscope.viewer.drawing.svg.tree_picture import Bonus, Ghost, PictureNode, TreePicture

CHARACTER = 7.3  # of the monospace font at 12 px
PADDING = 8  # of a label, left and right
MARGIN = 10
HEADER = 26
MIN_GAP, MAX_GAP = 20.0, 104.0
#: Characters of a label, tried one after another until a deep tree fits its width; tooltips have the whole text.
LABEL_LIMITS = (10, 8, 7, 6, 5, 4)
HEAD_WIDTH = 52.0  # of the words above a column
NARROW = 64.0  # columns closer than this are headed by only their number
ASIDE_WIDTH = 44.0  # of the word beside the bonus token and the ghost
SIGN_WIDTH, FIRST_SIGN_WIDTH = 16, 48
#: Trees with more rows are drawn densely: letters are as small as letters may be.
ROOMY_ROWS, DENSE_ROWS = 14, 30


class _Pitch(NamedTuple):
    """How much room a row takes, in pixels."""

    row: float
    label: float  # the height of a box


ROOMY, PLAIN, DENSE = _Pitch(33.0, 23.0), _Pitch(28.0, 23.0), _Pitch(20.0, 17.0)


class Point(NamedTuple):
    """A spot in the drawing."""

    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Columns and rows in pixels."""

    lefts: list[float]  # left edge of the labels, by column
    widths: list[float]  # widest label, by column
    pitch: _Pitch
    width: float
    height: float

    def left(self, place: Place) -> Point:
        """The middle of a label's left edge."""
        return Point(self.lefts[place.column], HEADER + MARGIN + self.pitch.label / 2 + place.row * self.pitch.row)


def label_width(label: str) -> float:
    """Width of a label's box; East Asian wide characters count twice, combining ones not at all."""
    cells = sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in label)
    return max(26.0, cells * CHARACTER + 2 * PADDING)


def draw_tree(picture: TreePicture, *, title: str, target_width: float = 860) -> Markup:
    """The whole drawing: an ``<svg>`` element that scales to the width it is given."""
    layout = _layout(picture)
    picture, grid = _fitted(picture, layout, target_width)
    parts = [*_edges(picture, layout, grid)]
    names = {node.slot: node.name for node in picture.nodes}
    for node in picture.nodes:
        place = layout.places[node.slot]
        parent = names.get(picture.parents[node.slot], "") if node.slot else ""
        parts.append(_node(node, grid.left(place), _kinship(place, parent), grid.pitch.label))
    if picture.bonus is not None and layout.bonus is not None:
        parts.append(_bonus(picture.bonus, grid.left(layout.bonus), grid.pitch.label))
    if picture.ghost is not None:
        parts.append(_ghost(picture.ghost, grid.left(layout.places[_ghost_slot(picture)]), grid.pitch.label))
    parts.append(_header(layout, grid))
    is_dense = grid.pitch is DENSE
    return markup(
        '<svg class="{kind}" xmlns="http://www.w3.org/2000/svg" '
        'viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="{title}" style="max-width:{most:.0f}px;--ss-least:{least:.0f}px">{parts}</svg>',
        kind=markup("ss-tree dense") if is_dense else markup("ss-tree"),
        width=grid.width,
        height=grid.height,
        title=html_text(title),
        most=grid.width * 1.15,
        least=grid.width * (1 if is_dense else 0.92),
        parts=joined(parts),
    )


def _ghost_slot(picture: TreePicture) -> int:
    """By which number the layout places the ghost: after all slots, so that it is the last child of its parent."""
    return len(picture.parents)


def _layout(picture: TreePicture) -> TreeLayout:
    shown = {node.slot for node in picture.nodes}
    if picture.ghost is None:
        return layout_tree(picture.parents, picture.path, shown)
    return layout_tree([*picture.parents, picture.ghost.parent], picture.path, {*shown, _ghost_slot(picture)})


def _fitted(picture: TreePicture, layout: TreeLayout, target: float) -> tuple[TreePicture, _Grid]:
    """The picture with labels short enough for its depth, so that a deep tree fits without shrinking its letters."""
    grid = _grid(picture, layout, target)
    for limit in LABEL_LIMITS:
        if grid.width <= target * 1.02:
            break
        nodes = [replace(node, label=shorten(node.label, limit)) for node in picture.nodes]
        bonus = None if picture.bonus is None else replace(picture.bonus, label=shorten(picture.bonus.label, limit))
        ghost = None if picture.ghost is None else replace(picture.ghost, label=shorten(picture.ghost.label, limit))
        picture = replace(picture, nodes=nodes, bonus=bonus, ghost=ghost)
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
    pitch = ROOMY if layout.num_rows <= ROOMY_ROWS else PLAIN if layout.num_rows <= DENSE_ROWS else DENSE
    return _Grid(
        lefts=lefts,
        widths=widths,
        pitch=pitch,
        width=max(x - gap + MARGIN, 320.0),
        height=HEADER + 2 * MARGIN + pitch.label + max(0, layout.num_rows - 1) * pitch.row,
    )


def _column_widths(picture: TreePicture, layout: TreeLayout) -> list[float]:
    nodes = {node.slot: node for node in picture.nodes}
    widths = [0.0] * layout.num_columns
    for slot, place in layout.places.items():
        if slot in nodes:
            widths[place.column] = max(widths[place.column], _node_width(nodes[slot]))
        elif picture.ghost is not None:
            widths[place.column] = max(widths[place.column], label_width(picture.ghost.label) + ASIDE_WIDTH)
    if picture.bonus is not None and layout.bonus is not None:
        column = layout.bonus.column
        widths[column] = max(widths[column], label_width(picture.bonus.label) + ASIDE_WIDTH)
    widths[-1] = max(widths[-1], HEAD_WIDTH)  # its head needs that room whatever the gaps are
    return widths


def _node_width(node: PictureNode) -> float:
    """The label and what is written beside it."""
    aside = 8.0 * len(f"+{node.hidden_below}") if node.hidden_below else 0.0
    return label_width(node.label) + _sign_width(node) + aside


def _sign_width(node: PictureNode) -> int:
    has_sign = node.divergent and not node.inherits
    differs = (FIRST_SIGN_WIDTH if node.origin else SIGN_WIDTH) if has_sign else 0
    return differs + (SIGN_WIDTH if node.violated else 0)


def _header(layout: TreeLayout, grid: _Grid) -> Markup:
    """The words above the columns, above all else: where a page scrolls the drawing, they stay in sight."""
    narrow = any(right - left < NARROW for left, right in pairwise(grid.lefts))
    depths = range(1, layout.num_columns)
    names = ["root", *(f"{depth}" if narrow and depth > 1 else f"depth {depth}" for depth in depths)]
    words = joined(
        markup('<text class="head" x="{x:.1f}" y="{y}">{name}</text>', x=left, y=MARGIN + 6, name=html_text(name))
        for name, left in zip(names, grid.lefts, strict=True)
    )
    back = markup('<rect width="{width:.0f}" height="{height}"/>', width=grid.width, height=HEADER)
    return markup('<g class="heads">{back}{words}</g>', back=back, words=words)


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
        width = _edge_width(node.probability if node.probability is not None else 0.1)
        kind = "edge on" if node.accepted else "edge"
        line = _edge(start, grid.left(layout.places[node.slot]), width, kind=kind, name=node.name)
        (blue if node.accepted else grey).append(line)
    if picture.ghost is not None:
        parent = picture.ghost.parent
        start = _exit_of(nodes[parent], layout.places[parent], grid)
        width = _edge_width(picture.ghost.probability)
        end = grid.left(layout.places[_ghost_slot(picture)])
        grey.append(_edge(start, end, width, kind="edge ghost"))
    if picture.bonus is not None and layout.bonus is not None:
        last = picture.path[-1] if picture.path else 0
        start = _exit_of(nodes[last], layout.places[last], grid)
        blue.append(_edge(start, grid.left(layout.bonus), 2.0, kind="edge on"))
    return grey + blue


def _edge_width(probability: float) -> float:
    """In pixels, of the drafter's probability."""
    return 1.2 + 4.0 * probability


class _Exit(NamedTuple):
    """Where edges leave a node."""

    at: Point  # the middle of its label's right edge
    column_end: float  # where the widest label of its column ends


def _exit_of(node: PictureNode, place: Place, grid: _Grid) -> _Exit:
    left = grid.left(place)
    return _Exit(Point(left.x + label_width(node.label), left.y), left.x + grid.widths[place.column])


def _edge(start: _Exit, end: Point, width: float, *, kind: str, name: str | None = None) -> Markup:
    """The edge to the node of that name, to the bonus token or to the ghost: straight to the end of its column, where
    a label may stand above or below it, and only then up or down."""
    across = end.x - start.column_end
    return markup(
        '<path{kind}{name} stroke-width="{width:.1f}" '
        'd="M{x:.1f} {y:.1f}H{column_end:.1f}c{half:.1f} 0 {half:.1f} {down:.1f} {across:.1f} {down:.1f}"/>',
        kind=kind_attribute(kind),
        name=NOTHING if name is None else attribute("data-edge", name),
        width=width,
        x=start.at.x,
        y=start.at.y,
        column_end=start.column_end,
        half=across / 2,
        down=end.y - start.at.y,
        across=across,
    )


def _kinship(place: Place, parent: str) -> Markup:
    """Depth and the parent's name as attributes, by which keys lead through the tree."""
    return joined([attribute("data-level", str(place.column + 1)), attribute("data-parent", parent)])


def _node(node: PictureNode, at: Point, kinship: Markup, height: float) -> Markup:
    flags = {
        "on": node.accepted,
        "differs": node.divergent,
        "inherits": node.inherits,
        "origin": node.origin and not node.accepted,
        "violated": node.violated,
    }
    width = label_width(node.label)
    return markup(
        '<g{kind}{name}{kinship}{shades} transform="translate({x:.1f} {y:.1f})"><title>{tooltip}</title>'
        "{box}{label}{probability}{aside}{branch}</g>",
        kind=kind_attribute(" ".join(["node", *(name for name, is_on in flags.items() if is_on)])),
        name=attribute("data-node", node.name),
        kinship=kinship,
        shades=_shades(node),
        tooltip=_lines(node.tooltip),
        x=at.x,
        y=at.y,
        box=_box(width, height),
        label=_text(node.label, 3),
        probability=_probability_bars(node, width, height),
        aside=_asides(node, width),
        branch=_branch(node, width),
    )


def _shades(node: PictureNode) -> Markup:
    """The numbers by which a page may colour nodes: the drafter's probability, the teacher's, and its entropy."""
    known = {"data-d": node.probability, "data-t": node.by_teacher, "data-e": node.entropy}
    return joined(attribute(name, f"{value:.3g}") for name, value in known.items() if value is not None)


def _probability_bars(node: PictureNode, width: float, height: float) -> Markup:
    """The drafter's at the bottom of the label, the teacher's at its top; each where it is known."""
    edge = _bar_edge(height)
    by_drafter = _probability_bar(node.probability, width, height / 2 - edge, markup("bar"))
    return joined([by_drafter, _probability_bar(node.by_teacher, width, edge - 2.6 - height / 2, markup("bar by-t"))])


def _probability_bar(probability: float | None, width: float, y: float, kind: Markup) -> Markup:
    if probability is None:
        return NOTHING
    return markup(
        '<rect class="{kind}" x="4" y="{y:.1f}" width="{width:.1f}" height="2.6" rx="1.3"/>',
        kind=kind,
        y=y,
        width=max(1.5, (width - 8) * probability),
    )


def _asides(node: PictureNode, right: float) -> Markup:
    """What is written beside a label of the width ``right``: signs, and how many nodes are folded below."""
    parts = []
    if node.divergent and not node.inherits:
        first = markup("<tspan> first</tspan>") if node.origin else NOTHING
        parts.append(_aside("sign", Point(right + 4, 5), joined([markup("≠"), first])))
    after_signs = right + _sign_width(node)
    if node.violated:
        parts.append(_aside("sign", Point(after_signs - SIGN_WIDTH + 4, 5), markup("✗")))
    if node.hidden_below and node.branch is None:
        parts.append(_aside("aside", Point(after_signs + 4, 4), html_text(f"+{node.hidden_below}")))
    return joined(parts)


def _branch(node: PictureNode, right: float) -> Markup:
    """What a click folds or unfolds; nothing where there is nothing, or nobody to click."""
    if node.branch is None:
        return NOTHING
    sign = f"+{node.hidden_below}" if node.branch == "closed" else "−"
    return markup(
        '<g{kind}{request}><rect x="{x:.1f}" y="-9" width="{width:.1f}" height="18"/>{sign}</g>',
        kind=kind_attribute(f"branch {node.branch}"),
        request=attribute("data-do", f"branch:{node.name}"),
        x=right + _sign_width(node),
        width=8.0 * len(sign) + 6,
        sign=_aside("aside", Point(right + _sign_width(node) + 4, 4), html_text(sign)),
    )


def _bonus(bonus: Bonus, at: Point, height: float) -> Markup:
    width = label_width(bonus.label)
    return markup(
        '<g class="bonus" transform="translate({x:.1f} {y:.1f})"><title>{tooltip}</title>{box}{label}{aside}</g>',
        tooltip=_lines(bonus.tooltip),
        x=at.x,
        y=at.y,
        box=_box(width, height),
        label=_text(bonus.label, 4),
        aside=_aside("aside", Point(width + 6, 4), markup("bonus")),
    )


def _ghost(ghost: Ghost, at: Point, height: float) -> Markup:
    width = label_width(ghost.label)
    return markup(
        '<g class="ghost" transform="translate({x:.1f} {y:.1f})"><title>{tooltip}</title>{box}{label}{bar}{aside}</g>',
        tooltip=_lines(ghost.tooltip),
        x=at.x,
        y=at.y,
        box=_box(width, height),
        label=_text(ghost.label, 3),
        bar=_probability_bar(ghost.probability, width, height / 2 - _bar_edge(height), markup("bar")),
        aside=_aside("aside", Point(width + 6, 4), markup("left out")),
    )


def _bar_edge(height: float) -> float:
    """From the edge of a label to the bar in it."""
    return 4.4 if height > DENSE.label else 3.4


def _box(width: float, height: float) -> Markup:
    return markup(
        '<rect class="box" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="5"/>',
        y=-height / 2,
        width=width,
        height=height,
    )


def _text(label: str, down: int) -> Markup:
    return markup('<text x="{x}" y="{y}">{label}</text>', x=PADDING, y=down, label=html_text(label))


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
