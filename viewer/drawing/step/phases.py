"""The card of phases over time, for pages and reports. Pure."""

from __future__ import annotations

from typing import NamedTuple

from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import quiet
from specscope.viewer.drawing.frames import scrolled
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.svg.phases import TimedSteps, draw_phases, lay_out, phase_words, unreadable_words

#: What asks for the phases of the steps around, and what takes them away again.
SHOW_PHASES = markup('<button type="button" data-do="phases:show">Show the phases over time</button>')
TITLE = "Phases over time"


class PhaseWindow(NamedTuple):
    """Steps whose phases are drawn, and whether fewer or more can be asked for."""

    timed: TimedSteps
    has_fewer: bool = False
    has_more: bool = False


def phases_card(window: PhaseWindow, *, current: int | None, buttons: bool) -> Markup:
    """The phases of ``window``, ``current`` marked; ``buttons`` are for pages. Without any recorded time, words."""
    laid = lay_out(window.timed)
    tools = _buttons(window) if buttons else NOTHING
    if laid is None:
        return card("phases", TITLE, "", joined([quiet(_nothing_words(window.timed)), tools]))
    steps = laid.steps
    aside = f"step {steps[0].step}" if len(steps) == 1 else f"steps {steps[0].step} to {steps[-1].step}"
    since = "since the turn began" if laid.is_placed or laid.prefill is not None else "since the first of them began"
    words = joined(quiet(line) for line in phase_words(laid))
    drawing = scrolled(draw_phases(laid, current=current, is_page=buttons))
    return card("phases", TITLE, f"{aside}, {since}", joined([drawing, words, tools]))


def _nothing_words(timed: TimedSteps) -> str:
    """Why nothing is drawn."""
    num_unreadable = sum(entry.is_unreadable for entry in timed.steps)
    if not num_unreadable:
        return "These steps record no timings."
    rest = " The others record no timings." if num_unreadable < len(timed.steps) else ""
    return f"{unreadable_words(num_unreadable)}{rest}"


def _buttons(window: PhaseWindow) -> Markup:
    offered = [("fewer", "Fewer steps", window.has_fewer), ("more", "More steps", window.has_more)]
    buttons = [
        markup(
            '<button type="button" data-do="phases:{what}">{words}</button> ',
            what=html_text(what),
            words=html_text(words),
        )
        for what, words, is_offered in offered
        if is_offered
    ]
    return joined([*buttons, markup('<button type="button" data-do="phases:hide">Hide them</button>')])
