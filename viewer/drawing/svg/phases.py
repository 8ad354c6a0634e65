"""Draws the phases of some steps over time: a lane for each phase, a column for each step. Knows records, no pages.

A record says how long phases took, and in some traces when its step began. Only where every step says that do they
stand where they began; else everything is laid one after another, and the words beside the drawing say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from specscope.schemas import TimingSection
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.frames import attribute, kind_attribute, step_link
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

WIDTH, LEFT, RIGHT = 860.0, 74.0, 118.0  # for the phase's name, and for its sum
ROOM = WIDTH - LEFT - RIGHT
TOP, LANE, HEIGHT, AXIS = 20.0, 20.0, 13.0, 22.0  # of the steps' numbers, from lane to lane, of a bar, of the ticks
#: Width at which the number of a step can be read, and the least of what took any time at all.
NUMBERED, LEAST = 26.0, 0.8
#: The least share of its size at which letters of 12 px can still be read.
LEGIBLE = 0.92
PREFILL = "prefill"
#: More than a hundred years: a hostile record's time may be a number of any size.
LONGEST_NS = 1 << 62


class TimedStep(NamedTuple):
    """A step with what was recorded of its times."""

    step: int
    timing: TimingSection | None
    is_unreadable: bool = False  # so that nothing is known of its times


@dataclass(frozen=True, kw_only=True)
class TimedSteps:
    """Steps of one turn that follow each other."""

    steps: Sequence[TimedStep]
    prefill_ns: int | None = None  # of the turn; None where it was not recorded, or lies before what is looked at
    num_rows: int = 1  # decoded side by side


class Span(NamedTuple):
    """A stretch of work, in nanoseconds."""

    name: str
    start: int
    length: int

    @property
    def end(self) -> int:
        """When it was over."""
        return self.start + self.length


class LaidStep(NamedTuple):
    """A step on the axis of time."""

    step: int
    phases: tuple[Span, ...]  # one after another, without those that were not recorded
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class LaidPhases:
    """Steps on an axis of time."""

    steps: Sequence[LaidStep]  # those that record timings
    prefill: Span | None
    is_placed: bool  # the steps stand where they began, since their turn began
    num_untimed: int  # of those that can be read
    num_unreadable: int
    num_without_begin: int  # of those that record timings
    num_unsynchronised: int
    num_rows: int

    @property
    def spans(self) -> list[Span]:
        """All work, step by step."""
        ahead = [] if self.prefill is None else [self.prefill]
        return [*ahead, *(span for step in self.steps for span in step.phases)]

    @property
    def start(self) -> int:
        """Of what is drawn."""
        return min(span.start for span in self._extents)

    @property
    def end(self) -> int:
        """Of what is drawn."""
        return max(span.end for span in self._extents)

    @property
    def _extents(self) -> list[Span]:
        steps = [Span("", step.start, step.end - step.start) for step in self.steps]
        return steps if self.prefill is None else [self.prefill, *steps]


def lay_out(timed: TimedSteps) -> LaidPhases | None:
    """Where every phase lies; None where no step records timings."""
    known = [(entry.step, entry.timing) for entry in timed.steps if entry.timing is not None]
    num_unreadable = sum(entry.is_unreadable for entry in timed.steps)
    if not known:
        return None
    num_without = sum(timing.begun_ns is None for _, timing in known)
    is_placed = num_without == 0
    prefill = None if timed.prefill_ns is None else Span(PREFILL, 0, _within(timed.prefill_ns))
    now = 0 if prefill is None else prefill.end
    steps = []
    for step, timing in known:
        start = _within(timing.begun_ns) if is_placed and timing.begun_ns is not None else now
        phases = tuple(_one_after_another(timing, start))
        now = phases[-1].end
        steps.append(LaidStep(step, phases, start, now))
    return LaidPhases(
        steps=steps,
        prefill=prefill,
        is_placed=is_placed,
        num_untimed=len(timed.steps) - len(known) - num_unreadable,
        num_unreadable=num_unreadable,
        num_without_begin=num_without,
        num_unsynchronised=sum(not timing.synchronised for _, timing in known),
        num_rows=timed.num_rows,
    )


def _one_after_another(timing: TimingSection, now: int) -> Iterator[Span]:
    for name in TIMED_PHASES:
        length = getattr(timing, f"{name}_ns")
        if length is not None:
            yield Span(name, now, _within(length))
            now += _within(length)


def _within(ns: int) -> int:
    return min(max(ns, 0), LONGEST_NS)


def phase_words(laid: LaidPhases) -> list[str]:
    """What the drawing shows, and what was not recorded."""
    lines = [_placed_words(laid)]
    if laid.num_untimed:
        lines.append(f"{counted(laid.num_untimed, 'step')} without recorded timings: left out.")
    if laid.num_unreadable:
        lines.append(unreadable_words(laid.num_unreadable))
    if laid.num_unsynchronised:
        lines.append("The device was not synchronised: these are the times of the calls, not of the work.")
    if laid.num_rows > 1:
        lines.append(f"{laid.num_rows} rows were decoded side by side: these are the times of all of them together.")
    return lines


def unreadable_words(num_steps: int) -> str:
    """Of steps that are left out because their records are broken."""
    return f"{counted(num_steps, 'step')} cannot be read: left out."


def _placed_words(laid: LaidPhases) -> str:
    if laid.is_placed:
        overlaps = sum(after.start < step.end for step, after in zip(laid.steps, laid.steps[1:], strict=False))
        odd = f" {counted(overlaps, 'step')} began before the one ahead was done." if overlaps else ""
        return (
            "Steps stand where they began; within a step, phases are laid one after another, as only how long they "
            f"took was recorded. {_outside_words(laid)}{odd}"
        )
    if laid.num_without_begin == len(laid.steps):
        return (
            "When a step began was not recorded: steps and phases are laid one after another, and time between them "
            "is not shown."
        )
    return (
        f"{laid.num_without_begin} of {counted(len(laid.steps), 'step')} do not record when they began: all are laid "
        "one after another, and time between them is not shown."
    )


def _outside_words(laid: LaidPhases) -> str:
    whole = laid.end - laid.start
    outside = max(0, whole - sum(span.length for span in laid.spans))
    return f"{milliseconds(outside)} of {milliseconds(whole)} lie in no recorded phase."


def milliseconds(ns: float) -> str:
    """A time in words, to three digits."""
    if ns >= LONGEST_NS:
        return "more than a hundred years"
    return f"{ns / 1e6:,.0f} ms" if ns >= 1e8 else f"{ns / 1e6:.3g} ms"


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Where times are drawn."""

    start: int
    length: int
    lanes: Sequence[str]  # names of phases, from above

    def x(self, time: int) -> float:
        return LEFT + (time - self.start) / self.length * ROOM

    def y(self, name: str) -> float:
        return TOP + LANE * self.lanes.index(name)

    @property
    def height(self) -> float:
        return TOP + LANE * len(self.lanes)


def draw_phases(laid: LaidPhases, *, current: int | None = None, is_page: bool = False) -> Markup:
    """The drawing of one step or more; ``current`` is marked. On a page, a click on a step asks for ``step:N``."""
    names = {span.name for span in laid.spans if span.length}
    lanes = [name for name in (PREFILL, *TIMED_PHASES) if name in names] or ["draft"]
    axis = _Axis(start=laid.start, length=max(1, laid.end - laid.start), lanes=lanes)
    label = f"phases of {counted(len(laid.steps), 'step')} over {milliseconds(axis.length)}"
    return markup(
        '<svg class="ss-phases" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        'role="{role}"{label} style="max-width:{most:.0f}px;--ss-least:{least:.0f}px">'
        "{lanes}{prefill}{steps}{ticks}</svg>",
        width=WIDTH,
        height=axis.height + AXIS,
        most=WIDTH * 1.4,
        least=WIDTH * LEGIBLE,
        role=markup("group") if is_page else markup("img"),  # what is within an image cannot be reached
        label=attribute("aria-label", label),
        lanes=joined(_lane(axis, name, laid) for name in lanes),
        prefill=NOTHING if PREFILL not in lanes or laid.prefill is None else _bar(axis, laid.prefill),
        steps=joined(
            _step(axis, at, step, is_current=step.step == current, is_page=is_page)
            for at, step in enumerate(laid.steps)
        ),
        ticks=joined(_ticks(axis)),
    )


def _lane(axis: _Axis, name: str, laid: LaidPhases) -> Markup:
    """The background of a lane, its name, and how long the phase took in all."""
    total = sum(span.length for span in laid.spans if span.name == name)
    share = total / (sum(span.length for span in laid.spans) or 1)
    return markup(
        '<rect class="lane" x="{left}" y="{y}" width="{room}" height="{height}"/>'
        '<text class="name" x="{name_x}" y="{base}" text-anchor="end">{name}</text>'
        '<text class="sum" x="{width}" y="{base}" text-anchor="end">{total}</text>',
        left=LEFT,
        y=axis.y(name),
        room=ROOM,
        height=HEIGHT,
        name_x=LEFT - 8,
        base=axis.y(name) + HEIGHT - 2,
        name=html_text(name),
        width=WIDTH - 2,
        total=html_text(f"{milliseconds(total)}, {share:.0%}"),
    )


def _step(axis: _Axis, at: int, step: LaidStep, *, is_current: bool, is_page: bool) -> Markup:
    """A step: its band, its number where there is room, and a bar for each phase."""
    start, end = axis.x(step.start), axis.x(step.end)
    kind = "timed odd" if at % 2 else "timed"
    number = markup(
        '<text class="number" x="{x:.1f}" y="13" text-anchor="middle">{step}</text>',
        x=(start + end) / 2,
        step=html_text(f"step {step.step}" if end - start > 2 * NUMBERED else str(step.step)),
    )
    return markup(
        '<g{kind}{asks}><rect class="band" x="{x:.2f}" y="0" width="{width:.2f}" height="{height}"/>{number}{bars}'
        "<title>{words}</title></g>",
        kind=kind_attribute(f"{kind} now" if is_current else kind),
        asks=step_link(step.step, _step_words(step)) if is_page else NOTHING,
        x=start,
        width=max(LEAST, end - start),
        height=axis.height,
        number=number if end - start > NUMBERED or is_current else NOTHING,
        bars=joined(_bar(axis, span) for span in step.phases if span.length),
        words=html_text(_step_words(step)),
    )


def _step_words(step: LaidStep) -> str:
    phases = ", ".join(f"{span.name} {milliseconds(span.length)}" for span in step.phases)
    return f"step {step.step}: {milliseconds(step.end - step.start)}; {phases}"


def _bar(axis: _Axis, span: Span) -> Markup:
    return markup(
        '<rect{kind} x="{x:.2f}" y="{y}" width="{width:.2f}" height="{height}"/>',
        kind=kind_attribute(f"work {span.name}"),
        x=axis.x(span.start),
        y=axis.y(span.name),
        width=max(LEAST, axis.x(span.end) - axis.x(span.start)),
        height=HEIGHT,
    )


def _ticks(axis: _Axis) -> Iterator[Markup]:
    """Milliseconds below the lanes, at round numbers, some six of them."""
    every = _round_up(axis.length / 6)
    first = math.ceil(axis.start / every)
    for count in range(first, math.floor((axis.start + axis.length) / every) + 1):
        time = count * every
        yield markup(
            '<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{low}"/>'
            '<text class="time" x="{x:.1f}" y="{base}" text-anchor="middle">{time}</text>',
            x=axis.x(round(time)),
            y=axis.height - 2,
            low=axis.height + 3,
            base=axis.height + 16,
            time=html_text(f"{time / 1e6:g}"),
        )
    yield markup('<text class="time" x="{x}" y="{base}">ms</text>', x=WIDTH - RIGHT + 14, base=axis.height + 16)


def _round_up(number: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(number, 1.0)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= number)
