"""Buttons that save a chart and its numbers, and what is dragged across it. Knows nothing of traces."""

from __future__ import annotations

import json
from collections.abc import Callable

import streamlit as st

from specscope.viewer.drawing.board import style_sheet
from specscope.viewer.screens.scripts import chart_script

_show = st.components.v2.component(
    "specscope_chart", html='<div class="chart-tools"></div>', css=style_sheet(), js=chart_script()
)


def show_chart_tools(
    *, key: str, name: str, title: str, csv: str, on_zoom: Callable[[str], None] | None = None
) -> None:
    """Shows the buttons for the chart in the same card.

    Args:
        key: of the component.
        name: of the files, without their endings.
        title: of the chart, for those who cannot see where the buttons stand.
        csv: its numbers, as they are saved.
        on_zoom: what a drag across the chart does, given both ends as numbers; given nothing, a double click.
    """
    data = json.dumps({"name": name, "title": title, "csv": csv}).encode()

    def zoomed() -> None:
        asked = st.session_state[key].zoomed
        if on_zoom is not None and isinstance(asked, str):
            on_zoom(asked)

    _show(data=data, key=key, width="content", on_zoomed_change=zoomed)
