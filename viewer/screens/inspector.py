"""Puts a board on a Streamlit page, and hears what is clicked there. Knows nothing of traces.

``st.html`` silently drops SVG; a component keeps it, and one component for a whole view is drawn several times
faster than a widget for each part.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import streamlit as st

from specscope.viewer.drawing.board import Board, style_sheet
from specscope.viewer.screens.keys import KEYS
from specscope.viewer.screens.scripts import inspector_script

# Both come from the browser, which may say anything: a node's name, and one of the things that boards ask for.
_NAME = re.compile(r"[ab]?\d{1,6}", re.ASCII)
_SHOWN = re.compile(r"shown:(\d{1,9})((?:\.\d{1,9}){0,2})", re.ASCII)
_NOTE_BYTES = 40_000
_REQUEST = re.compile(r"[a-z-]{1,20}(:[\w.-]{1,20})?", re.ASCII)

_show = st.components.v2.component(
    "specscope_inspector",
    html='<div class="inspector"><div class="strip"></div><div class="body"></div><div class="pop" hidden></div>'
    f"{KEYS}</div>",
    css=style_sheet(),
    js=inspector_script(),
)


class Walk(NamedTuple):
    """The steps of the turn that is looked at. What the browser has shown already is not sent again, and those that may
    come next are sent ahead."""

    turn: str  # whose steps they are; keys that have led on are forgotten where it changes
    scene: str  # changes with everything that boards depend on, but for their step
    num_steps: int
    draw: Callable[[int], Board]  # a step's board


class SavedFile(NamedTuple):
    """What the browser is to save under a name."""

    name: str
    text: str
    type: str = "application/json"


class Noted(NamedTuple):
    """What somebody wrote about a step."""

    step: int
    text: str


def parse_note(value: str) -> Noted | None:
    """What the browser says was written; None where it says anything else."""
    try:
        note = json.loads(value) if len(value) <= _NOTE_BYTES else None
    except ValueError:
        return None
    step, text = (note.get("step"), note.get("text")) if isinstance(note, dict) else (None, None)
    return Noted(step, text) if type(step) is int and 0 <= step < 10**9 and isinstance(text, str) else None


class _Ahead(NamedTuple):
    """What the browser asks for: it shows a step, and wants others before they are looked at."""

    scene: str | None
    step: int
    steps: list[int]


def _sent(board: Board) -> dict[str, Any]:
    return {"html": board.html, "notes": dict(board.notes), "raw": dict(board.raw)}


def show_board(
    draw: Callable[[], Board],
    *,
    key: str,
    title: str,
    now: int | None,
    picked: str | None,
    on_pick: Callable[[str | None], None],
    on_request: Callable[[str], None],
    walk: Walk | None = None,
    on_note: Callable[[Noted], None] | None = None,
    file: SavedFile | None = None,
) -> None:
    """Shows a board.

    Args:
        draw: what to show; called where the browser does not show it already.
        key: of the component; its state survives as long as the key does.
        title: what the browser calls the page now; a fragment cannot tell it otherwise.
        now: the step of the strip that is looked at.
        picked: the node that is selected.
        on_pick: called with the name of the node that was selected, or None once none is.
        on_request: called with what a click on ``data-do`` asks for. The caller must check it.
        walk: how the steps beside this one are drawn; None where there are none.
        on_note: called with what was written about a step. The caller must check the step.
        file: what the browser is to save now.
    """
    scene = None if walk is None else walk.scene

    def was_picked() -> None:
        name = _heard(key, "picked")
        if name is not None:
            on_pick(name if _NAME.fullmatch(name) else None)

    def was_noted() -> None:
        note = parse_note(_heard(key, "noted") or "")
        if note is not None and on_note is not None:
            on_note(note)

    def was_asked() -> None:
        request = _heard(key, "done") or ""
        shown = _SHOWN.fullmatch(request)
        if shown is not None:
            step = int(shown[1])
            st.session_state[f"{key}-ahead"] = _Ahead(scene, step, [int(at) for at in shown[2].split(".") if at])
            if step != now:
                on_request(f"step:{step}")
        elif _REQUEST.fullmatch(request):
            on_request(request)

    data: dict[str, Any] = {
        **_content(draw, walk, key, now),
        "title": title,
        "now": now,
        "picked": picked,
        "answered": st.session_state.get(f"{key}-answered"),
        "file": None if file is None else {**file._asdict(), "number": time.monotonic_ns()},
    }
    # As bytes: in anything else Streamlit looks for tables, and loads pandas and pyarrow to recognise them.
    _show(
        data=json.dumps(data).encode(),
        key=key,
        on_picked_change=was_picked,
        on_done_change=was_asked,
        on_noted_change=was_noted,
    )


def _heard(key: str, name: str) -> str | None:
    """What the component asks for; None where it did before, and again because the connection was lost meanwhile."""
    answered = f"{key}-answered"
    request = st.session_state[key].get(name)
    number, value = (request.get("number"), request.get("value")) if isinstance(request, dict) else (None, None)
    if isinstance(number, int) and number == st.session_state.get(answered):
        return None
    st.session_state[answered] = number if isinstance(number, int) else None
    return value if isinstance(value, str) else ""


def _content(draw: Callable[[], Board], walk: Walk | None, key: str, now: int | None) -> dict[str, Any]:
    """The board, or where the browser shows it already, those that it wants ahead."""
    turn, scene = (None, None) if walk is None else (walk.turn, walk.scene)
    asked: _Ahead | None = st.session_state.pop(f"{key}-ahead", None)
    if asked is not None and walk is not None and (asked.scene, asked.step) == (scene, now):
        nothing = dict.fromkeys(("html", "notes", "raw", "strip"))
        ahead = {step: _sent(walk.draw(step)) for step in asked.steps if step < walk.num_steps}
        return {**nothing, "turn": turn, "scene": scene, "ahead": ahead}
    board = draw()
    return {**_sent(board), "strip": board.strip, "turn": turn, "scene": scene, "ahead": {}}


def show_one_board(board: Board, *, key: str, title: str, on_request: Callable[[str], None]) -> None:
    """Shows a board that is not one of many steps, and of which no node can be selected."""
    show_board(
        lambda: board, key=key, title=title, now=None, picked=None, on_pick=lambda _: None, on_request=on_request
    )
