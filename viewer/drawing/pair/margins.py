"""Draws how far the teacher's choice at each node is from being another: the gap between its two best logits, in both
runs, against the noise floor. Knows records, no pages.

A gap within twice the floor may be turned round by noise alone: such a choice is a tie. Floors hold at magnitude 16 and
grow in proportion above it, so gaps are scaled down to that magnitude, and one band serves all nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from specscope.tracer.compare.roundings import STATED_SIZE, spacing
from specscope.tracer.compare.said import said_at
from specscope.tracer.words.text import html_text, shorten
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.pair.sides import NodePair, PairSide, PairSides

#: Nodes that are drawn: where it begins, where the choices differ, and then the narrowest.
MOST_ROWS = 10
WIDTH, ROW = 560.0, 26.0
LEFT, RIGHT = 124.0, 420.0  # of the axis
TOP, BOTTOM = 22.0, 32.0
LABEL_LIMIT = 14
CHOICE_LIMIT = 7


@dataclass(frozen=True)
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
    found = [margin for node in sides.nodes if (margin := _margin(sides, node)) is not None]
    return sorted(found, key=lambda margin: (not margin.begins, not margin.differs, margin.narrowest))


def margin_picture(sides: PairSides, floor: float | None) -> str:
    """The drawing with its legend, or why there is none, in words.

    Args:
        sides: the two steps.
        floor: the noise floor of logits; None where nothing was compared.
    """
    margins = margins_of(sides)
    if not margins:
        return note("info", "No margins to show", ["The teacher's two best logits were not recorded on both sides."])
    shown = margins[:MOST_ROWS]
    words = _legend(floor)
    if len(margins) > len(shown):
        left_out = margins[MOST_ROWS:]
        words += quiet(
            f"{len(left_out)} more nodes, none with a gap below {min(one.narrowest for one in left_out):.2g}."
        )
    return draw_margins(shown, floor) + words


def draw_margins(margins: Sequence[Margin], floor: float | None) -> str:
    """An ``<svg>`` element: a row a node, the gap on a logarithmic axis."""
    axis = _Axis.of(margins, floor)
    bottom = TOP + ROW * len(margins)
    parts = [*_band(axis, floor, bottom), *_ticks(axis, bottom)]
    parts += [_row(margin, TOP + ROW * (at + 0.5), axis) for at, margin in enumerate(margins)]
    return (
        f'<svg class="ss-margin" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {bottom + BOTTOM:.0f}" '
        'role="img" aria-label="gap between the two best logits of each node, against the noise floor" '
        f'style="max-width:{WIDTH * 1.15:.0f}px">'
        f"{''.join(parts)}</svg>"
    )


@dataclass(frozen=True)
class _Axis:
    """Powers of ten, the lowest for all that is smaller, zero too."""

    low: int
    high: int

    @classmethod
    def of(cls, margins: Sequence[Margin], floor: float | None) -> _Axis:
        gaps = [gap for margin in margins for gap in (margin.gap_a, margin.gap_b) if gap > 0]
        gaps += [2 * floor, floor / 4] if floor else []  # so that the band is to be seen
        low = math.floor(math.log10(min(gaps, default=1.0)) - 0.2)
        high = math.ceil(math.log10(max(gaps, default=1.0)) + 1e-9)
        return cls(max(low, high - 12), max(high, low + 2))

    def x(self, gap: float) -> float:
        at = math.log10(gap) if gap > 0 else -math.inf
        share = (min(max(at, self.low), self.high) - self.low) / (self.high - self.low)
        return LEFT + share * (RIGHT - LEFT)


def _band(axis: _Axis, floor: float | None, bottom: float) -> list[str]:
    if floor is None or floor <= 0:
        return []
    edge = axis.x(2 * floor)
    return [
        f'<rect class="band" x="{LEFT}" y="{TOP}" width="{edge - LEFT:.1f}" height="{bottom - TOP:.1f}"/>',
        f'<path class="floor" d="M{edge:.1f} {TOP - 4}V{bottom:.1f}"/>',
        f'<text class="note" x="{edge + 4:.1f}" y="{TOP - 6}">2 × floor {floor:.2g}</text>',
        f'<text class="note" x="{LEFT}" y="{TOP - 6}">tie</text>' if edge - LEFT > 24 else "",
    ]


def _ticks(axis: _Axis, bottom: float) -> list[str]:
    every = max(1, -(-(axis.high - axis.low) // 5))
    parts = [f'<path class="axis" d="M{LEFT} {bottom:.1f}H{RIGHT}"/>']
    for power in range(axis.low, axis.high + 1, every):
        x = axis.x(10.0**power)
        shown = f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"
        sign = "≤ " if power == axis.low else ""
        parts.append(f'<path class="tick" d="M{x:.1f} {TOP}V{bottom + 4:.1f}"/>')
        parts.append(f'<text class="note" x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{sign}{shown}</text>')
    parts.append(
        f'<text class="note" x="{(LEFT + RIGHT) / 2:.1f}" y="{bottom + 29:.1f}" text-anchor="middle">'
        "gap between the teacher's two best logits</text>"
    )
    return parts


def _row(margin: Margin, y: float, axis: _Axis) -> str:
    a, b = axis.x(margin.gap_a), axis.x(margin.gap_b)
    classes = "row begins" if margin.begins else "row"
    label = shorten(margin.label, LABEL_LIMIT)
    parts = [
        f"<title>{html_text(_tooltip(margin))}</title>",
        f'<rect class="hit" x="1" y="{y - ROW / 2:.1f}" width="{WIDTH - 2}" height="{ROW}" rx="4"/>',
        f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{html_text(label)}</text>',
        f'<path class="line" d="M{a:.1f} {y:.1f}H{b:.1f}"/>',
        f'<path class="candidate" d="M{b:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"/>',
        f'<circle class="baseline" cx="{a:.1f}" cy="{y:.1f}" r="5"/>',
        _choice(margin, y),
    ]
    return f'<g class="{classes}" data-node="{html_text(margin.name)}">{"".join(parts)}</g>'


def _choice(margin: Margin, y: float) -> str:
    a, b = shorten(margin.choice_a, CHOICE_LIMIT), shorten(margin.choice_b, CHOICE_LIMIT)
    shown = f"{a} ≠ {b}" if margin.differs else a
    kind = ' class="differs"' if margin.differs else ""
    return f'<text{kind} x="{RIGHT + 12}" y="{y + 4:.1f}">{html_text(shown)}</text>'


def _tooltip(margin: Margin) -> str:
    begins = "; the divergence begins here" if margin.begins else ""
    choice = f"wants {margin.choice_a}" + (f", in the candidate {margin.choice_b}" if margin.differs else "")
    return (
        f"{margin.label}: {choice}; gap {margin.gap_a:.3g} in the baseline, {margin.gap_b:.3g} in the candidate{begins}"
    )


def _legend(floor: float | None) -> str:
    band = '<span><i class="ss-key ss-key-band"></i>noise may turn it round: a tie</span>'
    words = quiet("No noise floor: nothing was compared here.") if floor is None else ""
    return (
        '<div class="ss-legend"><span><i class="ss-key-baseline"></i>baseline</span>'
        '<span><i class="ss-key-candidate"></i>candidate</span>'
        f"{band if floor else ''}<span>right: what the teacher wants next</span></div>{words}"
    )


def _margin(sides: PairSides, node: NodePair) -> Margin | None:
    if node.slot_a is None or node.slot_b is None:
        return None
    gap_a, gap_b = _gap(sides.a, node.slot_a), _gap(sides.b, node.slot_b)
    if gap_a is None or gap_b is None:
        return None
    best_a, best_b = _best(sides.a, node.slot_a), _best(sides.b, node.slot_b)
    return Margin(
        node.name,
        sides.label(node),
        gap_a,
        gap_b,
        sides.a.texts.shown(best_a),
        sides.b.texts.shown(best_b),
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
    said = None if verify is None else said_at(verify, slot)
    if said is None or len(said.logits) < 2:
        return None
    best, second = sorted(said.logits, reverse=True)[:2]
    gap = (best - second) * spacing(STATED_SIZE) / spacing(said.size)
    return gap if math.isfinite(gap) else None
