"""The controls that pages share: run, turn, the moves from step to step, and what is wrong with a file as a whole."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.words.text import counted, shorten, visible
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.tables.health import failure_note
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.screens.session import Arguments
from specscope.viewer.screens.view import View

#: In the session's state: whether large trees are drawn whole.
SHOW_ALL = "show_every_node"
MOST_TURNS_LISTED = 300
#: The largest number that a browser's number field can hold.
LARGEST_INPUT = (1 << 53) - 1


def show_warnings(reader: TraceReader) -> None:
    """What is wrong with the file as a whole, in words."""
    if reader.truncated:
        lines = ["The run was cut off, or is still going on; what is shown here is whole."]
        lines.append("What is written meanwhile is seen with the next move, or after a reload of the page.")
        if reader.index.torn_bytes:
            lines.append(f"A torn record of {counted(reader.index.torn_bytes, 'byte')} at its end is left out.")
        st.html(note("warn", "This trace is truncated: it has no end record", lines))
    for failure in reader.failures()[:3]:
        st.html(failure_note(failure))


def choose_run(arguments: Arguments, view: View) -> None:
    """The run of a page that is about one."""

    def chosen() -> None:
        view.run = st.session_state["run"]

    names = [run.name for run in arguments.catalogue.runs()]
    st.session_state["run"] = view.run
    st.selectbox("Run", names, format_func=visible, key="run", on_change=chosen, width=230)


def choose_turn(view: View, turns: list[TurnEntry], *, width: int = 250) -> None:
    """The turn of the page; ``width`` in pixels."""

    def chosen() -> None:
        go(view, Spot(nearest_turn(turns, int(st.session_state["turn"])), 0))

    if len(turns) > MOST_TURNS_LISTED:  # a browser chokes on a list of thousands
        numbers = [_inputtable(turn.turn) for turn in turns]
        st.session_state["turn"] = _inputtable(view.turn)
        label = f"Turn, of {len(turns):,}"
        st.number_input(label, min(numbers), max(numbers), step=1, key="turn", on_change=chosen, width=width)
        return
    names = {t.turn: f"{t.turn} · {shorten(visible(t.prompt_id), 40)} · {counted(len(t.steps), 'step')}" for t in turns}
    st.session_state["turn"] = view.turn
    st.selectbox("Turn", list(names), format_func=names.__getitem__, key="turn", on_change=chosen, width=width)


def nearest_turn(turns: list[TurnEntry], number: int) -> int:
    """The number of the turn, of one or more, that is nearest to the ``number`` of an input: there may be gaps."""
    return min((turn.turn for turn in turns), key=lambda found: abs(_inputtable(found) - number))


def _inputtable(number: int) -> int:
    return max(-LARGEST_INPUT, min(number, LARGEST_INPUT))


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
            on_click=go,
            args=(view, move.to),
            disabled=move.to is None,
        )


def go(view: View, to: Spot | None) -> None:
    """Looks at another step, where there is one; the node that was selected is none of its."""
    if to is not None:
        view.look_at(view.placed_in, *to)
