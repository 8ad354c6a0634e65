"""The controls that pages share: run, turn, moves from step to step, and warnings about a file as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted, shorten, visible
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.step.parts import LEAST
from specscope.viewer.drawing.svg.tree_picture import Branches
from specscope.viewer.drawing.tables.health import TRUNCATED, damage_note, failure_note, torn_text
from specscope.viewer.pairs.pairs import turn_named
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.screens.session import Arguments, damage_of
from specscope.viewer.screens.view import View

#: In the session's state: whether large trees are drawn whole, what was folded and unfolded, of which step, and the
#: place of the slider that folds unlikely nodes.
SHOW_ALL, TOGGLED, BELOW = "show_every_node", "toggled_branches", "fold_below"
_PLACE = re.compile(r"(\d{1,9})\.(\d{1,9})", re.ASCII)
_NODE = re.compile(r"[ab]?\d{1,6}", re.ASCII)
MOST_TURNS_LISTED = 300
#: In the session's state: the run, turn and step that following has led to.
FOLLOWED = "followed"
#: How often a trace that is followed is looked at.
FOLLOW_SECONDS = 1.5
#: The largest number that a browser's number field can hold.
LARGEST_INPUT = (1 << 53) - 1


def show_warnings(reader: TraceReader, role: str | None = None) -> None:
    """What is wrong with the file as a whole, in words; ``role`` says which of two it is."""
    if reader.truncated:
        lines = ["The run was cut off, or is still in progress; all that is shown here was recorded as a whole."]
        lines.append("New records appear with the next move, when the page is reloaded, or while it is followed.")
        lines += [torn_text(reader.index.torn_bytes)] if reader.index.torn_bytes else []
        st.html(note("warn", f"{role}: {TRUNCATED[:1].lower()}{TRUNCATED[1:]}" if role else TRUNCATED, lines))
    damage = damage_of(reader)
    if damage is not None:
        st.html(damage_note(damage, role))
    for failure in reader.failures()[:3]:
        st.html(failure_note(failure, role))


def follow(view: View, reader: TraceReader) -> None:
    """Of a trace that may still grow, offers to look at its newest step, again and again until that is turned off, or
    somebody looks at another step."""
    followed = st.session_state.pop(FOLLOWED, None)
    if followed is not None and followed != (view.run, view.turn, view.step):
        st.session_state["follow"] = False
    words = "Look at the newest step as it is written, until you look at another one"
    if not reader.truncated or not st.toggle("Follow", key="follow", help=words):
        return
    newest = next((turn for turn in reversed(reader.turns) if turn.steps), None)
    if newest is not None and (view.turn, view.step) != (newest.turn, len(newest.steps) - 1):
        view.look_at(view.run, newest.turn, len(newest.steps) - 1)
    st.session_state[FOLLOWED] = (view.run, view.turn, view.step)
    _watch(reader.path, reader.path.stat().st_size)


@st.fragment(run_every=FOLLOW_SECONDS)
def _watch(path: Path, size: int) -> None:
    """Runs the page again once the file at ``path`` has another size."""
    if path.exists() and path.stat().st_size != size:
        st.rerun()


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
    shortcut: str | None  # heard by Streamlit; None where the board hears the key itself
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
            shortcut=None,
            to=start if here != start else None,
            help="The first step of the turn: Home",
        ),
        _Move(label="← Prev", key="previous", shortcut=None, to=back, help="One step back: ←"),
        _Move(label="Next →", key="next", shortcut=None, to=forward, help="One step forward: →"),
        _Move(
            label="Last",
            key="last",
            shortcut=None,
            to=end if here != end else None,
            help="The last step of the turn: End",
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


def branches_of(view: View, step: int) -> Branches:
    """What of the trees of that step of the turn is to be shown; each step has its own branches."""
    place, toggled = st.session_state.get(TOGGLED, (None, frozenset()))
    show_all = bool(st.session_state.get(SHOW_ALL))
    least = LEAST[st.session_state.get(BELOW, 0)]
    return Branches(show_all, toggled if place == _place(view, step) else frozenset(), least)


def toggle_branches(view: View, request: str) -> bool:
    """Does what a click on a tree asks for: every node, only the likely ones, those above a probability, or the branch
    below one node. Whether it asks for that."""
    what, _, name = request.partition(":")
    if what in ("unfold", "fold"):
        st.session_state[SHOW_ALL] = what == "unfold"
        st.session_state.pop(TOGGLED, None)
        st.session_state.pop(BELOW, None)
    elif what == "below" and name in map(str, range(len(LEAST))):
        st.session_state[BELOW] = int(name)
        st.session_state.pop(TOGGLED, None)
        st.session_state.pop(SHOW_ALL, None)
    elif what == "branch" and _NODE.fullmatch(name):
        st.session_state[TOGGLED] = (_place(view, view.step), branches_of(view, view.step).toggled ^ {name})
    return what in ("unfold", "fold", "below", "branch")


def what_is_unfolded() -> str:
    """Differs where any tree would be drawn otherwise."""
    place, toggled = st.session_state.get(TOGGLED, (None, frozenset()))
    return repr((bool(st.session_state.get(SHOW_ALL)), st.session_state.get(BELOW, 0), place, sorted(toggled)))


def _place(view: View, step: int) -> tuple[str, str | None, int, int]:
    return view.page, view.placed_in, view.turn, step


def go_to_turn(view: View, turns: list[TurnEntry], which: str) -> None:
    """Looks at the turn before or after, ``which`` being previous or next; at the end of the previous one, from where a
    key leads back. Nothing where there is none, or ``which`` is another word."""
    at = next((at for at, turn in enumerate(turns) if turn.turn == view.turn), None)
    to = {"previous": -1, "next": 1}.get(which)
    if at is None or to is None or not 0 <= at + to < len(turns):
        return
    turn = turns[at + to]
    go(view, Spot(turn.turn, max(0, len(turn.steps) - 1) if to < 0 else 0))


def go_to_turn_or_place(view: View, turns: list[TurnEntry], request: str) -> None:
    """Looks where ``turn:previous``, ``turn:next`` or ``place:TURN.STEP`` asks for; nothing where there is no such
    turn."""
    what, _, where = request.partition(":")
    place = _PLACE.fullmatch(where)
    if what == "turn":
        go_to_turn(view, turns, where)
    elif place is not None and any(turn.turn == int(place[1]) for turn in turns):
        go(view, Spot(int(place[1]), int(place[2])))


def show_place_note(asked: Spot | None, shown: Spot) -> None:
    """Says where a link names a step that is not there; ``asked`` is None where it names none."""
    if asked is not None and asked != shown:
        title = f"There is no step {asked.step} in turn {asked.turn} of this trace"
        st.html(note("warn", title, [f"Turn {shown.turn}, step {shown.step} is shown instead."]))


def go(view: View, to: Spot | None) -> None:
    """Looks at another step, where there is one; the node that was selected belongs to the old step."""
    if to is not None:
        view.look_at(view.placed_in, *to)


def choose_run_and_turn(arguments: Arguments, view: View, reader: TraceReader) -> TurnEntry | None:
    """The controls of a page of one turn, and what is wrong with its trace; the turn, None where there are none."""
    turn = turn_named(reader, view.turn) or next(iter(reader.turns), None)
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        choose_run(arguments, view)
        if turn is not None:
            view.turn, view.placed_in = turn.turn, view.run
            choose_turn(view, reader.turns)
    show_warnings(reader)
    return turn
