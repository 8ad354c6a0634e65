"""Puts a board on a Streamlit page, and hears what is clicked there. Knows nothing of traces.

``st.html`` silently drops SVG; a component keeps it, and one component for a whole view is drawn several times
faster than a widget for each part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from specscope.viewer.drawing.board import Board, style_sheet

# Both come from the browser, which may say anything: a node's name, and one of the things that boards ask for.
_NAME = re.compile(r"[ab]?\d{1,6}", re.ASCII)
_REQUEST = re.compile(r"[a-z-]{1,20}(:[\w.-]{1,20})?", re.ASCII)

_show = st.components.v2.component(
    "specscope_inspector",
    html='<div class="inspector"><div class="strip"></div><div class="body"></div></div>',
    css=style_sheet(),
    js=Path(__file__).with_name("inspector.js").read_text(encoding="utf-8"),
)


def show_board(
    board: Board,
    *,
    key: str,
    now: int | None,
    picked: str | None,
    on_pick: Callable[[str | None], None],
    on_request: Callable[[str], None],
) -> None:
    """Shows ``board``.

    Args:
        board: what to show.
        key: of the component; its state survives as long as the key does.
        now: the step of the strip that is looked at.
        picked: the node that is selected.
        on_pick: called with the name of the node that was selected, or None once none is.
        on_request: called with what a click on ``data-do`` asks for. The caller must check it.
    """

    def heard(name: str) -> str:
        value = st.session_state[key].get(name)
        return value if isinstance(value, str) else ""

    def was_picked() -> None:
        name = heard("picked")
        on_pick(name if _NAME.fullmatch(name) else None)

    def was_asked() -> None:
        if _REQUEST.fullmatch(heard("done")):
            on_request(heard("done"))

    data: dict[str, Any] = {
        "html": board.html,
        "strip": board.strip,
        "notes": dict(board.notes),
        "raw": dict(board.raw),
        "now": now,
        "picked": picked,
    }
    # As bytes: in anything else Streamlit looks for tables, and loads pandas and pyarrow to recognise them.
    _show(data=json.dumps(data).encode(), key=key, on_picked_change=was_picked, on_done_change=was_asked)
