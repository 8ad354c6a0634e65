"""The Text page: what a turn emitted, each token by how it came about, beside the other run of a pair."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import visible
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.tables.health import no_steps_note
from specscope.viewer.drawing.text.board import RunText, text_board
from specscope.viewer.drawing.text.tokens import TurnText, nothing_accepted, tokens_of
from specscope.viewer.runs.readable import readable_steps
from specscope.viewer.screens.controls import choose_run_and_turn
from specscope.viewer.screens.inspector import show_one_board
from specscope.viewer.screens.session import HASHED, Arguments, open_run, token_texts
from specscope.viewer.screens.view import View

_READ = re.compile(r"read-([ab]):(\d{1,9})", re.ASCII)


def show_text_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    try:
        with open_run(arguments, view.run) as reader:
            _show(arguments, view, reader)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))


def _show(arguments: Arguments, view: View, reader: TraceReader) -> None:
    turn = choose_run_and_turn(arguments, view, reader)
    if turn is None:
        st.html(note("info", "This trace holds no turns yet", ["Decode a prompt with tracing on, then reload."]))
        return
    if not turn.steps:
        st.html(no_steps_note(reader, turn))
        return
    text = _run_text(arguments, view.run, turn)
    other = _other(arguments, view, turn)
    is_baseline = view.run == view.baseline
    pair = (text, None) if other is None else (text, other) if is_baseline else (other, text)

    def asked(request: str) -> None:
        place = _READ.fullmatch(request)
        if place is not None and (place[1] == "a") == (other is None or is_baseline):
            view.page = "step"
            view.look_at(view.run, turn.turn, int(place[2]))
        elif place is not None:
            _open_other(arguments, view, turn, int(place[2]))

    board = text_board(*pair)
    show_one_board(board, key="text", title=view.title, on_request=asked)


def _partner(view: View) -> str | None:
    """The other run of the pair that the run of the page belongs to."""
    if not view.has_pair or view.run not in (view.baseline, view.candidate):
        return None
    return view.candidate if view.run == view.baseline else view.baseline


def _same_turn(arguments: Arguments, name: str, turn: TurnEntry) -> TurnEntry | None:
    """The turn of another run that has the same prompt."""
    with open_run(arguments, name) as reader:
        wanted = (turn.prompt_id, turn.prompt_turn)
        return next((entry for entry in reader.turns if (entry.prompt_id, entry.prompt_turn) == wanted), None)


def _other(arguments: Arguments, view: View, turn: TurnEntry) -> RunText | None:
    name = _partner(view)
    entry = _same_turn(arguments, name, turn) if name is not None else None
    return _run_text(arguments, name, entry) if entry is not None and entry.steps else None


def _open_other(arguments: Arguments, view: View, turn: TurnEntry, step: int) -> None:
    name = _partner(view)
    entry = _same_turn(arguments, name, turn) if name is not None else None
    if entry is not None:
        view.page, view.run = "step", name
        view.look_at(name, entry.turn, step)


def _run_text(arguments: Arguments, name: str | None, turn: TurnEntry) -> RunText:
    with open_run(arguments, name) as reader:
        key = (reader.index.stamp, turn.turn)
        text = _turn_text(reader.path, key, arguments.tokenizer, _source=(reader, turn))
    return RunText(visible(name or ""), text)


@st.cache_resource(show_spinner="Reading the turn", max_entries=32, hash_funcs=HASHED)
def _turn_text(
    trace: Path, key: tuple[str, int], tokenizer: Path | None, *, _source: tuple[TraceReader, TurnEntry]
) -> TurnText:
    """Kept by the trace, its stamp and the turn's number."""
    reader, turn = _source
    texts = token_texts(tokenizer, reader)
    steps = dict(readable_steps(reader, turn))
    for step in steps.values():
        texts.learn(step)
    tokens = tokens_of(reader.turn_start(turn), steps.values())
    shown = {token.token: texts.shown(token.token) for token in tokens}
    lost = [number for number in range(len(turn.steps)) if number not in steps]
    return TurnText(tokens, nothing_accepted(steps.values()), shown, lost)
