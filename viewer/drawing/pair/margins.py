"""Draws how far the teacher's choice at each node is from being another: the gap between its two best logits, in both
runs, against the noise floor. Knows records, no pages.

Noise alone may reverse a gap within twice the floor: such a choice is a tie. Floors hold at magnitude 16 and
grow in proportion above it, so gaps are scaled down to that magnitude, and one band serves all nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from specscope.tracer.compare.roundings import STATED_SIZE, spacing
from specscope.tracer.compare.said import said_at
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import attribute, kind_attribute, scrolled
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.pair.sides import NodePair, PairSide, PairSides

#: Nodes that are drawn: where it begins, where the choices differ, and then the narrowest.
MOST_ROWS = 10
WIDTH, ROW = 560.0, 26.0
LEFT, RIGHT = 124.0, 420.0  # of the axis
TOP, BOTTOM = 22.0, 32.0
CHOICE_LIMIT = 7


@dataclass(frozen=True, kw_only=True)
class Margin:
    """The teacher's choice at one node of both trees. Texts are visible, but not yet escaped for markup."""

    name: str  # of ``NodeMarks``
    label: str
    gap_a: float  # between the two best logits, scaled as the floor is
    gap_b: float
    choice_a: str
    choice_b: str
    differs: bool  # the choices do
    begins: bool  # the divergence begins here

    @property
    def narrowest(self) -> float:
        """The smaller of the two gaps."""
        return min(self.gap_a, self.gap_b)


def margins_of(sides: PairSides) -> list[Margin]:
    """Of every node in both trees whose two best logits are known on both sides; the most telling first."""
    margins = [margin for node in sides.nodes if (margin := _margin(sides, node)) is not None]
    return sorted(margins, key=lambda margin: (not margin.begins, not margin.differs, margin.narrowest))


def margin_picture(sides: PairSides, floor: float | None) -> Markup:
    """The drawing with its legend, or why there is none, in words.

    Args:
        sides: the two steps.
        floor: the noise floor of logits; None where nothing was compared.
    """
    margins = margins_of(sides)
    if not margins:
        return note("info", "No margins to show", ["The teacher's two best logits were not recorded on both sides."])
    left_out = margins[MOST_ROWS:]
    parts = [scrolled(draw_margins(margins[:MOST_ROWS], floor)), _legend(floor)]
    if left_out:
        narrowest = min(margin.narrowest for margin in left_out)
        parts.append(quiet(f"{len(left_out)} more nodes, none with a gap below {narrowest:.2g}."))
    return joined(parts)


def draw_margins(margins: Sequence[Margin], floor: float | None) -> Markup:
    """An ``<svg>`` element: one row per node, the gap on a logarithmic axis."""
    axis = _Axis.of(margins, floor)
    bottom = TOP + ROW * len(margins)
    return markup(
        '<svg class="ss-margin" xmlns="http://www.w3.org/2000/svg" '
        'viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="gap between the two best logits of each node, against the noise floor" '
        'style="max-width:{most:.0f}px;--ss-least:{width:.0f}px">{band}{ticks}{rows}</svg>',
        width=WIDTH,
        height=bottom + BOTTOM,
        most=WIDTH * 1.15,
        band=_band(axis, floor, bottom),
        ticks=_ticks(axis, bottom),
        rows=joined(_row(margin, TOP + ROW * (at + 0.5), axis) for at, margin in enumerate(margins)),
    )


@dataclass(frozen=True)
class _Axis:
    """Powers of ten, the lowest for all that is smaller, zero too."""

    low: int
    high: int

    @classmethod
    def of(cls, margins: Sequence[Margin], floor: float | None) -> _Axis:
        gaps = [gap for margin in margins for gap in (margin.gap_a, margin.gap_b) if gap > 0]
        gaps += [2 * floor, floor / 4] if floor else []  # so that the band can be seen
        low = math.floor(math.log10(min(gaps, default=1.0)) - 0.2)
        high = math.ceil(math.log10(max(gaps, default=1.0)) + 1e-9)
        return cls(max(low, high - 12), max(high, low + 2))

    def x(self, gap: float) -> float:
        at = math.log10(gap) if gap > 0 else -math.inf
        share = (min(max(at, self.low), self.high) - self.low) / (self.high - self.low)
        return LEFT + share * (RIGHT - LEFT)


def _band(axis: _Axis, floor: float | None, bottom: float) -> Markup:
    if floor is None or floor <= 0:
        return NOTHING
    edge = axis.x(2 * floor)
    return markup(
        '<rect class="band" x="{left}" y="{top}" width="{width:.1f}" height="{height:.1f}"/>'
        '<path class="floor" d="M{edge:.1f} {above}V{bottom:.1f}"/>'
        '<text class="note" x="{text_left:.1f}" y="{text_y}">2 × floor {floor:.2g}</text>{tie}',
        left=LEFT,
        top=TOP,
        width=edge - LEFT,
        height=bottom - TOP,
        edge=edge,
        above=TOP - 4,
        bottom=bottom,
        text_left=edge + 4,
        text_y=TOP - 6,
        floor=floor,
        tie=markup('<text class="note" x="{x}" y="{y}">tie</text>', x=LEFT, y=TOP - 6) if edge - LEFT > 24 else NOTHING,
    )


def _ticks(axis: _Axis, bottom: float) -> Markup:
    every = max(1, -(-(axis.high - axis.low) // 5))
    return markup(
        '<path class="axis" d="M{left} {bottom:.1f}H{right}"/>{ticks}'
        '<text class="note" x="{middle:.1f}" y="{below:.1f}" text-anchor="middle">'
        "gap between the teacher's two best logits</text>",
        left=LEFT,
        right=RIGHT,
        bottom=bottom,
        ticks=joined(_tick(axis, power, bottom) for power in range(axis.low, axis.high + 1, every)),
        middle=(LEFT + RIGHT) / 2,
        below=bottom + 29,
    )


def _tick(axis: _Axis, power: int, bottom: float) -> Markup:
    shown = f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"
    return markup(
        '<path class="tick" d="M{x:.1f} {top}V{end:.1f}"/>'
        '<text class="note" x="{x:.1f}" y="{below:.1f}" text-anchor="middle">{shown}</text>',
        x=axis.x(10.0**power),
        top=TOP,
        end=bottom + 4,
        below=bottom + 16,
        shown=html_text(f"≤ {shown}" if power == axis.low else shown),
    )


def _row(margin: Margin, y: float, axis: _Axis) -> Markup:
    return markup(
        "<g{kind}{name}><title>{tooltip}</title>"
        '<rect class="hit" x="1" y="{top:.1f}" width="{width}" height="{height}" rx="4"/>'
        '<text x="{label_end}" y="{base:.1f}" text-anchor="end">{label}</text>'
        '<path class="line" d="M{a:.1f} {y:.1f}H{b:.1f}"/>'
        '<path class="candidate" d="M{b:.1f} {diamond:.1f}l6 6l-6 6l-6 -6z"/>'
        '<circle class="baseline" cx="{a:.1f}" cy="{y:.1f}" r="5"/>{choice}</g>',
        kind=kind_attribute("row begins" if margin.begins else "row"),
        name=attribute("data-node", margin.name),
        tooltip=html_text(_tooltip(margin)),
        top=y - ROW / 2,
        width=WIDTH - 2,
        height=ROW,
        label_end=LEFT - 10,
        base=y + 4,
        label=html_text(label_text(margin.label)),
        a=axis.x(margin.gap_a),
        b=axis.x(margin.gap_b),
        y=y,
        diamond=y - 6,
        choice=_choice(margin, y),
    )


def _choice(margin: Margin, y: float) -> Markup:
    a = label_text(margin.choice_a, CHOICE_LIMIT)
    b = label_text(margin.choice_b, CHOICE_LIMIT)
    return markup(
        '<text{kind} x="{x}" y="{y:.1f}">{shown}</text>',
        kind=kind_attribute("differs" if margin.differs else ""),
        x=RIGHT + 12,
        y=y + 4,
        shown=html_text(f"{a} ≠ {b}" if margin.differs else a),
    )


def _tooltip(margin: Margin) -> str:
    choice = f"teacher's top token {margin.choice_a}"
    choice += f", in the candidate {margin.choice_b}" if margin.differs else ""
    gaps = f"gap {margin.gap_a:.3g} in the baseline, {margin.gap_b:.3g} in the candidate"
    begins = "; the divergence begins here" if margin.begins else ""
    return f"{margin.label}: {choice}; {gaps}{begins}"


def _legend(floor: float | None) -> Markup:
    band = markup('<span><i class="ss-key ss-key-band"></i>a tie: noise may reverse it</span>')
    legend = markup(
        '<div class="ss-legend"><span><i class="ss-key-baseline"></i>baseline</span>'
        '<span><i class="ss-key-candidate"></i>candidate</span>{band}'
        "<span>right: the teacher's top token</span></div>",
        band=band if floor else NOTHING,
    )
    return legend if floor is not None else joined([legend, quiet("No noise floor: nothing was compared here.")])


def _margin(sides: PairSides, node: NodePair) -> Margin | None:
    if node.slot_a is None or node.slot_b is None:
        return None
    gap_a, gap_b = _gap(sides.a, node.slot_a), _gap(sides.b, node.slot_b)
    if gap_a is None or gap_b is None:
        return None
    best_a, best_b = _best(sides.a, node.slot_a), _best(sides.b, node.slot_b)
    return Margin(
        name=node.name,
        label=sides.label(node),
        gap_a=gap_a,
        gap_b=gap_b,
        choice_a=sides.a.shown(best_a),
        choice_b=sides.b.shown(best_b),
        differs=best_a != best_b,
        begins=node.slot_a == sides.a.marks.origin,
    )


def _best(side: PairSide, slot: int) -> int:
    verify = side.step.verify
    assert verify is not None
    return verify.argmax[slot]


def _gap(side: PairSide, slot: int) -> float | None:
    """Between the two best logits, at the size at which floors are stated."""
    verify = side.step.verify
    scores = None if verify is None else said_at(verify, slot)
    if scores is None or len(scores.logits) < 2:
        return None
    best, second = sorted(scores.logits, reverse=True)[:2]
    gap = (best - second) * spacing(STATED_SIZE) / spacing(scores.size)
    return gap if math.isfinite(gap) else None
