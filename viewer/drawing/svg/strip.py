"""Draws the steps of a turn as a strip of bars: height is accepted length, colour and sign say what is wrong. Pure.

Each bar carries ``data-do``, what a click asks for, and the steps that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from specscope.viewer.drawing.frames import kind_attribute
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

WIDTH = 1200.0
WIDEST = 1840.0  # of a page: a strip without room to spare is as wide as that allows
LEFT = 26.0  # room for the scale
TOP, BARS, BOTTOM = 18.0, 44.0, 18.0
MAX_BAR = 84.0  # from one bar to the next: a turn of 14 steps is as wide as a long one
#: More steps than this share bars.
MOST_BARS = 400

StepState = Literal["plain", "unpaired", "inherited", "tie", "root", "violated", "failed"]
#: From harmless to grave: a bar of several steps shows the gravest.
STATES: tuple[StepState, ...] = get_args(StepState)
SIGNS: dict[StepState, str] = {"root": "≠", "violated": "✗", "failed": "✗", "tie": "≈"}
MEANINGS: dict[StepState, str] = {
    "plain": "",
    "unpaired": "the other run grouped these tokens into different steps",
    "inherited": "differs because of an earlier step",
    "tie": "differs by a tie within the noise floor",
    "root": "divergence begins here",
    "violated": "an invariant is violated",
    "failed": "the engine failed in this step",
}
#: What the bars of a comparison say by their colour; one that nothing is said of has none.
KEYS: dict[StepState, str] = {
    "root": "≠ divergence begins",
    "inherited": "follows from an earlier step",
    "tie": "≈ tie within the noise floor",
    "violated": "✗ violates an invariant",
    "failed": "✗ the engine failed",
    "unpaired": "without a partner: the other run grouped these tokens differently",
}


@dataclass(frozen=True)
class StripStep:
    """One step of the turn."""

    accepted: int  # accepted length; excludes root and bonus
    state: StepState = "plain"
    other: int | None = None  # accepted length of its partner in the other run
    noted: bool = False  # somebody noted something on it


@dataclass(frozen=True, kw_only=True)
class _Bar:
    """Steps ``first`` to ``last``, drawn as one."""

    first: int
    last: int
    accepted: int
    state: StepState
    goes_to: int
    other: int | None
    noted: bool = False


@dataclass(frozen=True)
class _Scale:
    """How bars are laid out."""

    pitch: float  # from one bar to the next
    tallest: int  # accepted length of the tallest bar

    @property
    def bar_width(self) -> float:
        return max(0.6, self.pitch - min(6.0, self.pitch * 0.25))

    def height(self, accepted: int) -> float:
        """Of a bar; an accepted length of 0 is a step too."""
        return max(accepted / self.tallest * BARS, 2.0)


def draw_strip(steps: Sequence[StripStep], *, current: int | None = None) -> Markup:
    """The strip; ``current`` is the step that is looked at, where it does not move."""
    bars = _bars(steps)
    tallest = max([1, *(bar.accepted for bar in bars), *(bar.other or 0 for bar in bars)])
    scale = _Scale(min(MAX_BAR, (WIDTH - LEFT) / max(1, len(bars))), tallest)
    floor = TOP + BARS
    width = min(WIDTH, LEFT + scale.pitch * len(bars) + 8)
    return markup(
        '<svg class="ss-strip" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="accepted length of every step of the turn" '
        'style="max-width:{most:.0f}px;--ss-least:{width:.0f}px">'
        '<text x="{left}" y="{top}" text-anchor="end">{tallest}</text>'
        '<text x="{left}" y="{floor}" text-anchor="end">0</text>'
        '<line class="floor" x1="{start}" x2="{right:.1f}" y1="{line}" y2="{line}"/>{bars}{ticks}</svg>',
        width=width,
        most=width * WIDEST / WIDTH,
        height=floor + BOTTOM,
        left=LEFT - 8,
        top=TOP + 9,
        tallest=tallest,
        floor=floor,
        start=LEFT,
        right=LEFT + scale.pitch * len(bars),
        line=floor + 0.5,
        bars=joined(_bar(number, bar, scale, current) for number, bar in enumerate(bars)),
        ticks=joined(_ticks(bars, scale)),
    )


def strip_key(steps: Sequence[StripStep]) -> Markup:
    """What a comparison's strip of these steps of the baseline shows, of what is in it; nothing without steps."""
    if not steps:
        return NOTHING
    states = {step.state for step in steps}
    lines = [markup("<span>bar: accepted length in the baseline</span>")]
    if any(step.other is not None for step in steps):
        lines.append(markup('<span><i class="ss-key-bar ss-key-other"></i>in the candidate</span>'))
    lines += [
        markup(
            '<span><i class="ss-key ss-key-{state}"></i>{words}</span>', state=html_text(state), words=html_text(words)
        )
        for state, words in KEYS.items()
        if state in states
    ]
    return markup('<div class="ss-legend ss-strip-key">{lines}</div>', lines=joined(lines))


def _bars(steps: Sequence[StripStep]) -> list[_Bar]:
    size = -(-len(steps) // MOST_BARS) or 1
    return [_bar_of(first, steps[first : first + size]) for first in range(0, len(steps), size)]


def _bar_of(first: int, steps: Sequence[StripStep]) -> _Bar:
    """One bar for ``steps``, at least one, the first of which is step ``first``."""
    gravest = max(range(len(steps)), key=lambda at: (STATES.index(steps[at].state), -at))
    others = [step.other for step in steps if step.other is not None]
    return _Bar(
        first=first,
        last=first + len(steps) - 1,
        accepted=max(step.accepted for step in steps),
        state=steps[gravest].state,
        goes_to=first + gravest,
        other=max(others) if others else None,
        noted=any(step.noted for step in steps),
    )


def _bar(number: int, bar: _Bar, scale: _Scale, current: int | None) -> Markup:
    x = LEFT + number * scale.pitch
    middle = x + scale.bar_width / 2
    is_current = current is not None and bar.first <= current <= bar.last
    height = scale.height(bar.accepted)
    return markup(
        '<g{kind} data-do="step:{goes_to}" data-first="{first}" data-last="{last}"><title>{tooltip}</title>'
        '<rect class="bar" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}"/>{sign}{other}{noted}'
        '<path class="pointer" d="M{left:.1f} {bottom}h10l-5 -6z"/>'
        '<rect class="hit" x="{x:.2f}" y="0" width="{pitch:.2f}" height="{whole}"/></g>',
        kind=kind_attribute(f"step {bar.state}{'' if bar.accepted else ' none'}{' now' if is_current else ''}"),
        goes_to=bar.goes_to,
        first=bar.first,
        last=bar.last,
        tooltip=html_text(_tooltip(bar)),
        x=x,
        y=TOP + BARS - height,
        width=scale.bar_width,
        height=height,
        sign=_sign(bar.state, middle),
        other=NOTHING if bar.other is None else _other(bar.other, x, scale),
        noted=_noted(middle) if bar.noted else NOTHING,
        left=middle - 5,
        bottom=TOP + BARS + 7,
        pitch=scale.pitch,
        whole=TOP + BARS + BOTTOM,
    )


def _sign(state: StepState, middle: float) -> Markup:
    sign = SIGNS.get(state)
    if sign is None:
        return NOTHING
    return markup(
        '<text class="sign" x="{x:.1f}" y="{y}" text-anchor="middle">{sign}</text>',
        x=middle,
        y=TOP - 4,
        sign=html_text(sign),
    )


def _noted(middle: float) -> Markup:
    """A dot below the bar."""
    return markup('<circle class="noted" cx="{x:.1f}" cy="{y}" r="2.6"/>', x=middle, y=TOP + BARS - 6)


def _other(accepted: int, x: float, scale: _Scale) -> Markup:
    """The partner's accepted length, as a line across the bar."""
    y = TOP + BARS - scale.height(accepted)
    return markup('<path class="other" d="M{x:.2f} {y:.1f}h{width:.2f}"/>', x=x - 1, y=y, width=scale.bar_width + 2)


def _tooltip(bar: _Bar) -> str:
    many = bar.first != bar.last
    words = f"steps {bar.first} to {bar.last}: at most {bar.accepted} accepted"
    if not many:
        words = f"step {bar.first}: {bar.accepted} accepted"
        words += f", {bar.other} in the other run" if bar.other is not None else ""
    words += "; somebody noted something" if bar.noted else ""
    if bar.state == "plain":
        return words
    where = f" (step {bar.goes_to})" if many else ""
    return f"{words}; {MEANINGS[bar.state]}{where}"


def _ticks(bars: Sequence[_Bar], scale: _Scale) -> list[Markup]:
    every = next((n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n * scale.pitch >= 36), len(bars))
    return [
        markup(
            '<text x="{x:.1f}" y="{y}" text-anchor="middle">{step}</text>',
            x=LEFT + scale.bar_width / 2 + number * scale.pitch,
            y=TOP + BARS + BOTTOM - 1,
            step=bars[number].first,
        )
        for number in range(0, len(bars), every)
    ]
