"""Puts an SVG string on a Streamlit page, inline, so that tooltips work and clicks come back. Knows nothing of traces.

``st.html`` drops SVG without a word, and an image has no tooltips; a component has both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

_show = st.components.v2.component(
    "specscope_drawing",
    html='<div class="drawing"></div>',
    css=".drawing { overflow: hidden }\n",
    js=Path(__file__).with_name("drawing.js").read_text(encoding="utf-8"),
)


def show_drawing(svg: str, *, key: str) -> None:
    """Shows ``svg``, scaled to the width of its place."""
    _show(data={"svg": svg}, key=key, on_pick_change=lambda: None)


def show_pickable(svg: str, *, key: str, picked: Callable[[int], None]) -> None:
    """Shows ``svg`` and calls ``picked`` with the number of the element clicked, which the caller must check."""

    def changed() -> None:
        value = st.session_state[key].get("pick")
        # It comes from the browser: take a plain number or nothing.
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 9:
            picked(int(value))

    _show(data={"svg": svg}, key=key, on_pick_change=changed)
