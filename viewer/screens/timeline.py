"""The Timeline page: what the stages of a pipelined run did and when."""

from __future__ import annotations

import contextlib
from pathlib import Path

import streamlit as st

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.tables.health import no_steps_note
from specscope.viewer.drawing.timeline.board import Looked, timeline_board
from specscope.viewer.drawing.timeline.flow import FlowItem, TurnFlow, flow_of
from specscope.viewer.drawing.timeline.window import PAN, ZOOM, Window, around, parse_window, shows, whole
from specscope.viewer.screens.controls import choose_run_and_turn, go_to_turn
from specscope.viewer.screens.inspector import show_board
from specscope.viewer.screens.session import HASHED, Arguments, open_run, token_texts
from specscope.viewer.screens.view import View

#: Turns of more tokens than this are looked at from their beginning on.
MOST_AT_ONCE = 60


def is_pipelined(arguments: Arguments, name: str | None) -> bool:
    """Whether the run has stages to be shown."""
    with contextlib.suppress(SpecScopeError), open_run(arguments, name) as reader:
        return reader.manifest.pipeline is not None
    return False


def show_timeline_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    try:
        with open_run(arguments, view.run) as reader:
            _show(arguments, view, reader)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))


def _show(arguments: Arguments, view: View, reader: TraceReader) -> None:
    turn = choose_run_and_turn(arguments, view, reader)
    if reader.manifest.pipeline is None:
        lines = [
            "This run decoded in one process. Record one with: specscope run --engine ppsd --stages 2 --trace FILE"
        ]
        st.html(note("info", "This run has no stages", lines))
        return
    if turn is None or not turn.steps:
        no_turn = note("info", "This trace holds no turns yet", ["Decode a prompt with tracing on, then reload."])
        st.html(no_turn if turn is None else no_steps_note(reader, turn))
        return
    drawn = _drawn(arguments, reader, turn)
    if drawn is None:
        st.html(
            note("info", "Nothing was recorded of the stages", ["The records of this turn have no pipeline section."])
        )
        return
    flow, texts = drawn
    looked = looked_at(flow, view)
    page = _Page(view, flow, looked, reader.turns)
    show_board(
        lambda: timeline_board(flow, looked, texts.shown),
        key="timeline",
        title=view.title,
        now=None,
        picked=None if looked.item is None else str(looked.item.number),
        on_pick=page.pick,
        on_request=page.ask,
    )


def looked_at(flow: TurnFlow, view: View) -> Looked:
    """What the view names: a token by its number, or by the step that verified it; and a stretch of time."""
    item = None
    if view.node is not None and view.node.isdecimal() and int(view.node) < len(flow.items):
        item = flow.items[int(view.node)]
    elif view.step:
        item = flow.of_step(view.step)
    window = parse_window(view.window, flow)
    if window is None and item is not None:
        window = around(item, flow)
    if window is None:
        window = whole(flow) if len(flow.items) <= MOST_AT_ONCE else around(flow.items[0], flow)
    return Looked(window, item)


class _Page:
    """What clicks, keys and gestures come to."""

    def __init__(self, view: View, flow: TurnFlow, looked: Looked, turns: list[TurnEntry]) -> None:
        self._view, self._flow, self._looked, self._turns = view, flow, looked, turns

    def pick(self, name: str | None) -> None:
        """A token was clicked, or let go of."""
        if name is None:
            self._view.node, self._view.step = None, 0
        elif name.isdecimal() and int(name) < len(self._flow.items):
            self._select(self._flow.items[int(name)], self._looked.window)

    def ask(self, request: str) -> None:
        """A button, a key or a gesture."""
        what, _, how = request.partition(":")
        window = self._looked.window
        if what == "window":
            self._look(parse_window(how, self._flow))
        elif what == "zoom":
            zooms = {"in": window.zoomed(ZOOM, self._flow), "out": window.zoomed(1 / ZOOM, self._flow)}
            self._look(zooms.get(how, whole(self._flow)))
        elif what == "pan":
            self._look(window.moved(-PAN if how == "left" else PAN, self._flow))
        elif what in ("token", "refill"):
            self._move(how, refills=what == "refill")
        elif what == "turn":
            go_to_turn(self._view, self._turns, how)
            self._view.step, self._view.node, self._view.window = 0, None, None
        elif what == "open" and how.isdecimal():
            self._view.page = "step"
            self._view.look_at(self._view.run, self._view.turn, int(how))

    def _look(self, window: Window | None) -> None:
        if window is not None:
            self._view.window = window.words(self._flow)

    def _move(self, how: str, *, refills: bool) -> None:
        """To the token, or the refill, before or after the one that is selected, or that is in the middle."""
        items = [item for item in self._flow.items if item.fate == "refill" or not refills]
        here = self._here()
        before = [item for item in items if item.number < here]
        after = [item for item in items if item.number > here]
        to = {"previous": before[-1:], "next": after[:1], "first": items[:1], "last": items[-1:]}.get(how)
        for item in to or ():
            self._select(item, self._looked.window if shows(self._looked.window, item) else around(item, self._flow))

    def _here(self) -> float:
        if self._looked.item is not None:
            return self._looked.item.number
        # Between two tokens: the first one in sight comes next.
        in_sight = [item.number for item in self._flow.items if item.end > self._looked.window.start]
        return min(in_sight, default=0) - 0.5

    def _select(self, item: FlowItem, window: Window) -> None:
        self._view.node = str(item.number)
        self._view.step = item.step or 0
        self._look(window)


def _drawn(arguments: Arguments, reader: TraceReader, turn: TurnEntry) -> tuple[TurnFlow, TokenTexts] | None:
    key = (reader.index.stamp, turn.turn)
    flow = _flow(reader.path, key, _source=(reader, turn))
    return None if flow is None else (flow, token_texts(arguments.tokenizer, reader))


@st.cache_resource(show_spinner="Reading the turn", max_entries=8, hash_funcs=HASHED)
def _flow(trace: Path, key: tuple[str, int], *, _source: tuple[TraceReader, TurnEntry]) -> TurnFlow | None:
    """Kept by the trace, its stamp and the turn's number."""
    reader, turn = _source
    pipeline = reader.manifest.pipeline
    if pipeline is None:
        return None
    return flow_of(pipeline.stages, reader.turn_start(turn), reader.steps(turn), reader.turn_end(turn))
