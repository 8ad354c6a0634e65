"""Draws the steps of a turn as a strip of bars: height = accepted length, colour and sign = what is wrong there. Pure.

Each bar carries ``data-do``, what a click asks for, and the steps that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH = 1200.0
LEFT = 26.0  # room for the scale
TOP, BARS, BOTTOM = 18.0, 44.0, 18.0
MAX_BAR = 54.0
#: More steps than this share bars.
MOST_BARS = 400

StepState = Literal["plain", "unpaired", "inherited", "tie", "root", "violated"]
#: From harmless to grave: a bar of several steps shows the gravest.
STATES: tuple[StepState, ...] = ("plain", "unpaired", "inherited", "tie", "root", "violated")
SIGNS: dict[StepState, str] = {"root": "≠", "violated": "✗", "tie": "≈"}
MEANINGS: dict[StepState, str] = {
    "plain": "",
    "unpaired": "the other run grouped these tokens into other steps",
    "inherited": "differs because of a step before it",
    "tie": "differs by a tie within the noise floor",
    "root": "divergence begins here",
    "violated": "an invariant is violated",
}


@dataclass(frozen=True)
class StripStep:
    """One step of the turn."""

    accepted: int  # accepted length; excludes root and bonus
    state: StepState = "plain"
    other: int | None = None  # accepted length of its partner in the other run


@dataclass(frozen=True)
class _Bar:
    """Steps ``first`` to ``last``, drawn as one."""

    first: int
    last: int
    accepted: int
    state: StepState
    goes_to: int
    other: int | None


def draw_strip(steps: Sequence[StripStep], *, current: int | None = None) -> str:
    """The strip; ``current`` is the step that is looked at, where it does not move."""
    bars = _bars(steps)
    tallest = max([1, *(bar.accepted for bar in bars), *(bar.other or 0 for bar in bars)])
    pitch = min(MAX_BAR, (WIDTH - LEFT) / max(1, len(bars)))
    floor, right = TOP + BARS, LEFT + pitch * len(bars)
    height = floor + BOTTOM
    parts = [
        f'<text x="{LEFT - 8}" y="{TOP + 9}" text-anchor="end">{tallest}</text>',
        f'<text x="{LEFT - 8}" y="{floor}" text-anchor="end">0</text>',
        f'<line class="floor" x1="{LEFT}" x2="{right:.1f}" y1="{floor + 0.5}" y2="{floor + 0.5}"/>',
        *(_bar(number, bar, pitch, tallest, current) for number, bar in enumerate(bars)),
        *_ticks(bars, pitch),
    ]
    return (
        f'<svg class="ss-strip" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="accepted length of every step of the turn">{"".join(parts)}</svg>'
    )


def _bars(steps: Sequence[StripStep]) -> list[_Bar]:
    size = -(-len(steps) // MOST_BARS) or 1
    found = []
    for first in range(0, len(steps), size):
        some = steps[first : first + size]
        gravest = max(range(len(some)), key=lambda at: (STATES.index(some[at].state), -at))
        others = [step.other for step in some if step.other is not None]
        found.append(
            _Bar(
                first,
                first + len(some) - 1,
                max(step.accepted for step in some),
                some[gravest].state,
                first + gravest,
                max(others) if others else None,
            )
        )
    return found


def _bar(number: int, bar: _Bar, pitch: float, tallest: int, current: int | None) -> str:
    x, width, floor = LEFT + number * pitch, _bar_width(pitch), TOP + BARS
    middle = x + width / 2
    is_current = current is not None and bar.first <= current <= bar.last
    shown = max(bar.accepted / tallest * BARS, 2.0)  # an accepted length of 0 is a step too
    sign = SIGNS.get(bar.state)
    parts = [
        f"<title>{_tooltip(bar)}</title>",
        f'<rect class="bar" x="{x:.2f}" y="{floor - shown:.1f}" width="{width:.2f}" height="{shown:.1f}"/>',
        "" if sign is None else f'<text class="sign" x="{middle:.1f}" y="{TOP - 4}" text-anchor="middle">{sign}</text>',
        "" if bar.other is None else _other(bar.other, x, width, tallest),
        f'<path class="pointer" d="M{middle - 5:.1f} {floor + 7}h10l-5 -6z"/>',
        f'<rect class="hit" x="{x:.2f}" y="0" width="{pitch:.2f}" height="{floor + BOTTOM}"/>',
    ]
    classes = f"step {bar.state}{' none' if not bar.accepted else ''}{' now' if is_current else ''}"
    place = f'data-first="{bar.first}" data-last="{bar.last}"'
    return f'<g class="{classes}" data-do="step:{bar.goes_to}" {place}>{"".join(parts)}</g>'


def _other(accepted: int, x: float, width: float, tallest: int) -> str:
    """The partner's accepted length, as a line across the bar."""
    y = TOP + BARS - max(accepted / tallest * BARS, 2.0)
    return f'<path class="other" d="M{x - 1:.2f} {y:.1f}h{width + 2:.2f}"/>'


def _tooltip(bar: _Bar) -> str:
    many = bar.first != bar.last
    words = f"steps {bar.first} to {bar.last}: at most {bar.accepted} accepted" if many else f"step {bar.first}: "
    words += "" if many else f"{bar.accepted} accepted"
    if bar.other is not None and not many:
        words += f", {bar.other} in the other run"
    where = f" (step {bar.goes_to})" if many and bar.state != "plain" else ""
    return words + (f"; {MEANINGS[bar.state]}{where}" if bar.state != "plain" else "")


def _bar_width(pitch: float) -> float:
    return max(0.6, pitch - min(6.0, pitch * 0.25))


def _ticks(bars: Sequence[_Bar], pitch: float) -> list[str]:
    every = next((n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n * pitch >= 36), len(bars))
    first, y = LEFT + _bar_width(pitch) / 2, TOP + BARS + BOTTOM - 1
    return [
        f'<text x="{first + number * pitch:.1f}" y="{y}" text-anchor="middle">{bars[number].first}</text>'
        for number in range(0, len(bars), every)
    ]
