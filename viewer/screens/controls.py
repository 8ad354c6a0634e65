"""The controls that pages share: run, turn, moves from step to step, and warnings about a file as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted, shorten, visible
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.tables.health import TRUNCATED, failure_note, torn_text
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
        lines = ["The run was cut off, or is still in progress; all that is shown here was recorded as a whole."]
        lines.append("New records appear with the next move, or when the page is reloaded.")
        lines += [torn_text(reader.index.torn_bytes)] if reader.index.torn_bytes else []
        st.html(note("warn", TRUNCATED, lines))
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
    return min((turn.turn for turn in turns), key=lambda turn: abs(_inputtable(turn) - number))


def _inputtable(number: int) -> int:
    return max(-LARGEST_INPUT, min(number, LARGEST_INPUT))


@dataclass(frozen=True, kw_only=True)
class _Move:
    """A button."""

    label: str
    key: str
    shortcut: str
    to: Spot | None  # None where there is nowhere to go
    help: str


def show_moves(view: View, num_steps: int, states: RunStates) -> None:
    """The buttons that lead from step to step, each with its key."""
    for move in _moves(Spot(view.turn, view.step), num_steps, states):
        st.button(
            move.label,
            key=move.key,
            shortcut=move.shortcut,
            help=move.help,
            on_click=go,
            args=(view, move.to),
            disabled=move.to is None,
        )


def _moves(here: Spot, num_steps: int, states: RunStates) -> list[_Move]:
    start = Spot(here.turn, 0)
    end = Spot(here.turn, max(0, num_steps - 1))
    back = Spot(here.turn, here.step - 1) if here != start else None
    forward = Spot(here.turn, here.step + 1) if here.step < end.step else None
    return [
        _Move(
            label="First",
            key="first",
            shortcut="Home",
            to=start if here != start else None,
            help="The first step of the turn",
        ),
        _Move(label="Prev", key="previous", shortcut="Left", to=back, help="One step back"),
        _Move(label="Next", key="next", shortcut="Right", to=forward, help="One step forward"),
        _Move(
            label="Last",
            key="last",
            shortcut="End",
            to=end if here != end else None,
            help="The last step of the turn",
        ),
        _Move(
            label="≠ Prev",
            key="previous-divergence",
            shortcut="P",
            to=states.before(here),
            help="The previous divergence or violation",
        ),
        _Move(
            label="≠ Next",
            key="next-divergence",
            shortcut="N",
            to=states.after(here),
            help="The next divergence or violation",
        ),
    ]


def go(view: View, to: Spot | None) -> None:
    """Looks at another step, where there is one; the node that was selected belongs to the old step."""
    if to is not None:
        view.look_at(view.placed_in, *to)
