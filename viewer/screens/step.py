"""The Step page: one step of one turn of one run, and the way from step to step."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import streamlit as st

from specscope.schemas import Step
from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.rules import is_lossy, rule_text
from specscope.tracer.oracle.invariants.base import Context
from specscope.viewer.drawing.board import Board
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.labels.failed import FailedStep, failed_after, failed_step_note
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.markup import Markup
from specscope.viewer.drawing.step.board import step_board
from specscope.viewer.drawing.step.raw import raw_text
from specscope.viewer.drawing.svg.strip import StripStep, draw_strip
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
    as_typed,
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


class _Turn(NamedTuple):
    """The turn that is shown."""

    entry: TurnEntry
    failed: FailedStep | None  # after its last step; None where none failed, or it cannot be drawn

    @property
    def num_steps(self) -> int:
        """Of the steps that can be shown."""
        return len(self.entry.steps) + (self.failed is not None)

    def step(self, reader: TraceReader, number: int) -> Step:
        """A step that can be shown; that which failed is the last."""
        if self.failed is not None and number == len(self.entry.steps):
            return self.failed.step
        return reader.step(self.entry, number)

    def strip(self, states: RunStates) -> Markup:
        """The overview of the turn."""
        failed = [StripStep(0, "failed")] if self.failed is not None else []
        return draw_strip([*states.of_turn(self.entry.turn), *failed])


def _show(arguments: Arguments, view: View, reader: TraceReader, pair: OpenPair | None) -> None:
    _arrive(view, pair)
    states = states_of(reader, pair)
    turn = _choose(arguments, view, reader, states)
    show_warnings(reader)
    if turn is None:
        return
    _show_rule(reader)
    if turn.failed is not None and view.step == len(turn.entry.steps):
        st.html(failed_step_note(turn.failed, as_typed(reader.path)))
    board = _board(arguments, view, reader, turn, strip=turn.strip(states), marks=_marks(view, pair))

    def picked(name: str | None) -> None:
        view.node = name

    def asked(request: str) -> None:
        what, _, where = request.partition(":")
        if what == "step" and where.isdecimal():
            go(view, Spot(view.turn, clamp(int(where), turn.num_steps)))
        elif what in ("unfold", "fold"):
            st.session_state[SHOW_ALL] = what == "unfold"

    show_board(board, key="inspector", now=view.step, picked=view.node, on_pick=picked, on_request=asked)


def _board(
    arguments: Arguments, view: View, reader: TraceReader, turn: _Turn, *, strip: Markup, marks: NodeMarks
) -> Board:
    texts = token_texts(arguments.tokenizer, reader)
    step = turn.step(reader, view.step)
    texts.learn(step)
    previous = turn.step(reader, view.step - 1) if view.step > 0 else None
    context = Context(manifest=reader.manifest, turn=reader.turn_start(turn.entry), previous=previous, step=step)
    judged = judged_step(context, texts, marks)
    board = step_board(judged, strip=strip, show_all=bool(st.session_state.get(SHOW_ALL)))
    if turn.failed is not None and step is turn.failed.step:
        return replace(board, raw={"step": raw_text(turn.failed.failure)})
    return board


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


def _choose(arguments: Arguments, view: View, reader: TraceReader, states: RunStates) -> _Turn | None:
    """The controls; the turn chosen, with ``view`` in its range, or None where it has no step to show."""
    entry = turn_named(reader, view.turn) or next(iter(reader.turns), None)
    failed = failed_after(entry, reader.failures(), reader.manifest.sampling) if entry is not None else None
    turn = _Turn(entry, failed) if entry is not None else None
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        choose_run(arguments, view)
        if turn is not None:
            view.turn = turn.entry.turn
            view.step = clamp(view.step, turn.num_steps)
            choose_turn(view, reader.turns)
            show_moves(view, turn.num_steps, states)
    if turn is None:
        st.html(note("info", "This trace holds no turns yet", ["Decode a prompt with tracing on, then reload."]))
    elif not turn.num_steps:
        st.html(no_steps_note(reader, turn.entry))
    return turn if turn is not None and turn.num_steps else None
