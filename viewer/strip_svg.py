"""Draws the steps of a turn as a strip of bars, height = accepted length. Pure; knows neither records nor Streamlit.

Each bar carries ``data-pick``, the number of its step, for whoever listens to clicks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from specscope.viewer import palette

WIDTH = 1200.0
LEFT = 26.0  # room for the scale
TOP, BARS, BOTTOM = 16.0, 44.0, 18.0
MAX_BAR = 54.0

STYLE = f"""
text {{ font: 11px {palette.SANS}; fill: {palette.MUTED} }}
.bar {{ fill: {palette.ACCEPTED}; opacity: .55 }}
.none {{ fill: {palette.LINE} }}
.now .bar, .now .none {{ fill: {palette.ACCEPTED}; opacity: 1 }}
.now .mark {{ fill: {palette.INK} }}
.hit {{ fill: transparent; cursor: pointer }}
g.step:hover .hit {{ fill: rgba(31, 41, 51, .08) }}
.bad {{ fill: {palette.DIVERGENT}; font: 700 12px {palette.SANS} }}
.floor {{ stroke: {palette.LINE} }}
"""


def draw_strip(accepted: Sequence[int], current: int, marked: Collection[int], *, mark: str, meaning: str) -> str:
    """The strip.

    Args:
        accepted: accepted length, by step.
        current: the step that is looked at.
        marked: steps to be marked.
        mark: the sign of a marked step, one character.
        meaning: what the sign means, for the tooltip.
    """
    tallest = max([*accepted, 1])
    pitch = min(MAX_BAR, (WIDTH - LEFT) / max(1, len(accepted)))
    floor, right = TOP + BARS, LEFT + pitch * len(accepted)
    parts = [
        f'<text x="{LEFT - 8}" y="{TOP + 9}" text-anchor="end">{tallest}</text>',
        f'<text x="{LEFT - 8}" y="{floor}" text-anchor="end">0</text>',
        f'<line class="floor" x1="{LEFT}" x2="{right:.1f}" y1="{floor + 0.5}" y2="{floor + 0.5}"/>',
    ]
    for step, length in enumerate(accepted):
        x = LEFT + step * pitch
        middle = x + _bar_width(pitch) / 2
        tip = f"step {step}: {length} accepted" + (f", {meaning}" if step in marked else "")
        sign = f'<text class="bad" x="{middle:.1f}" y="{TOP - 3}" text-anchor="middle">{mark}</text>'
        parts.append(
            f'<g class="step{" now" if step == current else ""}" data-pick="{step}"><title>{tip}</title>'
            f"{_bar(x, pitch, length / tallest * BARS)}{_pointer(middle) if step == current else ''}"
            f"{sign if step in marked else ''}"
            f'<rect class="hit" x="{x:.2f}" y="0" width="{pitch:.2f}" height="{floor + BOTTOM}"/></g>'
        )
    parts += _ticks(len(accepted), pitch)
    height = floor + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" '
        'aria-label="accepted length of every step of the turn" '
        'style="display:block;width:100%;max-width:1500px;height:auto">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>"
    )


def _bar_width(pitch: float) -> float:
    return max(0.6, pitch - min(6.0, pitch * 0.25))


def _bar(x: float, pitch: float, height: float) -> str:
    width = _bar_width(pitch)
    shown = max(height, 2.0)  # an accepted length of 0 is a step too
    kind = "bar" if height else "none"
    return f'<rect class="{kind}" x="{x:.2f}" y="{TOP + BARS - shown:.1f}" width="{width:.2f}" height="{shown:.1f}"/>'


def _pointer(x: float) -> str:
    floor = TOP + BARS
    return f'<path class="mark" d="M{x - 5:.1f} {floor + 7}h10l-5 -6z"/>'


def _ticks(num_steps: int, pitch: float) -> list[str]:
    every = next((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n * pitch >= 36), 5000)
    first, y = LEFT + _bar_width(pitch) / 2, TOP + BARS + BOTTOM - 1
    return [
        f'<text x="{first + step * pitch:.1f}" y="{y}" text-anchor="middle">{step}</text>'
        for step in range(0, num_steps, every)
    ]
