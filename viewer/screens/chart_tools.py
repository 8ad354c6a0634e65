"""Buttons that save a chart and its numbers. Knows nothing of traces."""

from __future__ import annotations

import json

import streamlit as st

from specscope.viewer.drawing.board import style_sheet
from specscope.viewer.screens.scripts import chart_script

_show = st.components.v2.component(
    "specscope_chart", html='<div class="chart-tools"></div>', css=style_sheet(), js=chart_script()
)


def show_chart_tools(*, key: str, name: str, title: str, csv: str) -> None:
    """Shows the buttons for the chart in the same card.

    Args:
        key: of the component.
        name: of the files, without their endings.
        title: of the chart, for those who cannot see where the buttons stand.
        csv: its numbers, as they are saved.
    """
    _show(data=json.dumps({"name": name, "title": title, "csv": csv}).encode(), key=key, width="content")
