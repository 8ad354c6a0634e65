"""The Step page: one step of one turn of one run, and the way from step to step."""

from __future__ import annotations

import streamlit as st

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.words.rules import is_lossy, rule_text
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.step.board import step_board
from specscope.viewer.drawing.svg.strip import draw_strip
from specscope.viewer.drawing.tables.health import LOSSY_LINE, no_steps_note
from specscope.viewer.pairs.looks import beside_baseline, beside_candidate, marks_beside
from specscope.viewer.pairs.pairs import turn_named
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.runs.judge import judged_step
from specscope.viewer.screens.controls import SHOW_ALL, choose_run, choose_turn, go, show_moves, show_warnings
from specscope.viewer.screens.inspector import show_board
from specscope.viewer.screens.session import (
    Arguments,
    OpenPair,
    open_pair,
    open_run,
    remember_view,
    states_of,
    token_texts,
)
from specscope.viewer.screens.view import View, clamp


@st.fragment
def show_step_page(arguments: Arguments, view: View) -> None:
    """The whole page. A fragment: from step to step, nothing else of the app runs again."""
    try:
        with open_run(arguments, view.run) as reader, open_pair(arguments, view, reader) as pair:
            _show(arguments, view, reader, pair)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))
    remember_view(view)


def _show(arguments: Arguments, view: View, reader: TraceReader, pair: OpenPair | None) -> None:
    _arrive(view, pair)
    states = states_of(reader, pair)
    entry = _choose(arguments, view, reader, states)
    show_warnings(reader)
    if entry is None:
        return
    texts = token_texts(arguments.tokenizer, reader)
    step = reader.step(entry, view.step)
    texts.learn(step)
    previous = reader.step(entry, view.step - 1) if view.step > 0 else None
    strip = draw_strip(states.of_turn(entry.turn))
    context = Context(manifest=reader.manifest, turn=reader.turn_start(entry), previous=previous, step=step)
    _show_rule(reader)
    show_all = bool(st.session_state.get(SHOW_ALL))
    judged = judged_step(context, texts, _marks(view, pair))
    board = step_board(judged, strip=strip, show_all=show_all)

    def picked(name: str | None) -> None:
        view.node = name

    def asked(request: str) -> None:
        what, _, where = request.partition(":")
        if what == "step" and where.isdecimal():
            go(view, Spot(view.turn, clamp(int(where), len(entry.steps))))
        elif what in ("unfold", "fold"):
            st.session_state[SHOW_ALL] = what == "unfold"

    show_board(board, key="inspector", now=view.step, picked=view.node, on_pick=picked, on_request=asked)


def _show_rule(reader: TraceReader) -> None:
    """What to know about the acceptance rule, where it is not greedy."""
    sampling = reader.manifest.sampling
    if is_lossy(sampling):
        st.html(note("warn", rule_text(sampling), [LOSSY_LINE]))
    elif sampling.rule != "greedy":
        st.html(quiet(f"{rule_text(sampling)}: tokens are drawn, so the teacher's top token may not be emitted"))


def _arrive(view: View, pair: OpenPair | None) -> None:
    """Where to look when coming from another run: at the partner of its step, else at the beginning."""
    if view.placed_in in (view.run, None):
        view.placed_in = view.run
        return
    spot = None
    if pair is not None and view.placed_in in (view.baseline, view.candidate):
        beside = beside_baseline if pair.side == "b" else beside_candidate
        spot = beside(pair.comparison, Spot(view.turn, view.step))
    view.look_at(view.run, *(spot or Spot(0, 0)))


def _marks(view: View, pair: OpenPair | None) -> NodeMarks:
    """The nodes that differ from the other run of a pair."""
    if pair is None:
        return NodeMarks()
    at = Spot(view.turn, view.step)
    return marks_beside(pair.baseline, pair.candidate, pair.comparison, side=pair.side, at=at)


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
        st.html(no_steps_note(reader, entry))
    return entry if entry is not None and entry.steps else None
