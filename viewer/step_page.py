"""The Step page: one step of one turn of one run, and the way from step to step."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.index import TurnEntry
from specscope.tracer.invariants.base import Context
from specscope.tracer.reader import TraceReader
from specscope.tracer.rules import is_lossy, rule_text
from specscope.tracer.text import shorten, visible
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.step_board import step_board
from specscope.viewer.drawing.strip_svg import draw_strip
from specscope.viewer.inspector import show_board
from specscope.viewer.pairs import turn_named
from specscope.viewer.session import Arguments, remember_view, run_named, states_of, token_texts
from specscope.viewer.states import RunStates, Spot
from specscope.viewer.view import View, clamp

SHOW_ALL = "show_every_node"


@st.fragment
def show_step_page(arguments: Arguments, view: View) -> None:
    """The whole page. A fragment: from step to step, nothing else of the app runs again."""
    run = run_named(arguments, view.run)
    try:
        with TraceReader(run.path) as reader:
            _show(arguments, view, reader)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))
    remember_view(view)


def _show(arguments: Arguments, view: View, reader: TraceReader) -> None:
    states = states_of(arguments, view, reader)
    entry = _choose(arguments, view, reader, states)
    show_warnings(reader)
    if entry is None:
        return
    texts = token_texts(arguments.tokenizer, reader.path)
    step = reader.step(entry, view.step)
    texts.learn(step)
    previous = reader.step(entry, view.step - 1) if view.step > 0 else None
    strip = draw_strip(states.of_turn(entry.turn))
    context = Context(reader.manifest, reader.turn_start(entry), previous, step)
    if is_lossy(reader.manifest.sampling):
        st.html(
            note("warn", rule_text(reader.manifest.sampling), ["The output is not distributed as the teacher's own."])
        )
    show_all = bool(st.session_state.get(SHOW_ALL))
    board = step_board(context, texts, NodeMarks(), strip=strip, show_all=show_all)

    def picked(name: str | None) -> None:
        view.node = name

    def asked(request: str) -> None:
        what, _, where = request.partition(":")
        if what == "step" and where.isdecimal():
            _go(view, Spot(view.turn, clamp(int(where), len(entry.steps))))
        elif what in ("unfold", "fold"):
            st.session_state[SHOW_ALL] = what == "unfold"

    show_board(board, key="inspector", now=view.step, picked=view.node, on_pick=picked, on_request=asked)


def show_warnings(reader: TraceReader) -> None:
    """What is wrong with the file as a whole, in words."""
    if reader.truncated:
        lines = ["The run was cut off, or is still going on; what is shown here is whole."]
        if reader.index.torn_bytes:
            lines.append(f"Its last {reader.index.torn_bytes} bytes are a torn record and are left out.")
        st.html(note("warn", "This trace is truncated: it has no end record", lines))
    for failure in reader.failures()[:3]:
        where = f"turn {failure.turn}, step {failure.step}, phase {failure.phase}"
        st.html(note("bad", f"The engine failed: {failure.error}", [where, shorten(failure.message, 400)]))


def _choose(arguments: Arguments, view: View, reader: TraceReader, states: RunStates) -> TurnEntry | None:
    """The controls; the turn chosen, with ``view`` in its range, or None where there is no step to show."""
    entry = turn_named(reader, view.turn) or next(iter(reader.turns), None)
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        choose_run(arguments, view)
        if entry is not None:
            view.turn, view.step = entry.turn, clamp(view.step, len(entry.steps))
            choose_turn(view, reader.turns)
            show_moves(view, len(entry.steps), states)
    if entry is None:
        st.html(note("info", "This trace holds no turns yet", ["Decode a prompt with tracing on, then reload."]))
    elif not entry.steps:
        st.html(note("info", "This turn has no steps", ["It ended with the prompt's own next token."]))
    return entry if entry is not None and entry.steps else None


def choose_run(arguments: Arguments, view: View) -> None:
    """The run of a page that is about one."""

    def chosen() -> None:
        view.run, view.node = st.session_state["run"], None

    names = [run.name for run in arguments.catalogue.runs()]
    st.session_state["run"] = view.run
    st.selectbox("Run", names, format_func=visible, key="run", on_change=chosen, width=230)


def choose_turn(view: View, turns: list[TurnEntry]) -> None:
    """The turn of the page."""

    def chosen() -> None:
        _go(view, Spot(int(st.session_state["turn"]), 0))

    names = {t.turn: f"{t.turn} · {shorten(visible(t.prompt_id), 40)} · {len(t.steps)} steps" for t in turns}
    st.session_state["turn"] = view.turn
    st.selectbox("Turn", list(names), format_func=names.__getitem__, key="turn", on_change=chosen, width=250)


class _Move(NamedTuple):
    """A button."""

    label: str
    key: str
    shortcut: str
    to: Spot | None  # None where there is nowhere to go
    help: str


def show_moves(view: View, num_steps: int, states: RunStates) -> None:
    """The buttons that lead from step to step, each with its key."""
    here, last = Spot(view.turn, view.step), max(0, num_steps - 1)
    start, end = Spot(view.turn, 0), Spot(view.turn, last)
    moves = [
        _Move("First", "first", "Home", start if here != start else None, "The turn's first step"),
        _Move("Prev", "previous", "Left", Spot(view.turn, view.step - 1) if view.step else None, "One step back"),
        _Move("Next", "next", "Right", Spot(view.turn, view.step + 1) if view.step < last else None, "One step on"),
        _Move("Last", "last", "End", end if here != end else None, "The turn's last step"),
        _Move("≠ Prev", "previous-divergence", "P", states.before(here), "The divergence or violation before"),
        _Move("≠ Next", "next-divergence", "N", states.after(here), "The next divergence or violation"),
    ]
    for move in moves:
        st.button(
            move.label,
            key=move.key,
            shortcut=move.shortcut,
            help=move.help,
            on_click=_go,
            args=(view, move.to),
            disabled=move.to is None,
        )


def _go(view: View, to: Spot | None) -> None:
    if to is not None:
        view.turn, view.step, view.node = to.turn, to.step, None
