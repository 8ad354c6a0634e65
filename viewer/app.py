"""The viewer's Streamlit script: header, choice of page, errors in words. Started by ``specscope view``."""

from __future__ import annotations

import sys
from pathlib import Path

# Imported here, before anything is drawn, although only Streamlit uses it: it would import it in the middle of a page,
# and plotly, drawing for the rerun that a key has started meanwhile, would find it half imported.
import pandas  # noqa: F401
import streamlit as st

from specscope.tracer.errors import SpecScopeError
from specscope.viewer.diff_page import show_diff_page
from specscope.viewer.drawing.board import whole_style_sheet
from specscope.viewer.drawing.fragments import note
from specscope.viewer.session import current_view, parse_arguments, remember_view
from specscope.viewer.step_page import show_step_page
from specscope.viewer.view import View

PAGES = {"step": show_step_page, "diff": show_diff_page}
TITLES = {"runs": "Runs", "step": "Step", "diff": "Diff", "metrics": "Metrics", "health": "Trace health"}


def main() -> None:
    """One run of the script."""
    st.set_page_config(page_title="SpecScope", page_icon="🔬", layout="wide", initial_sidebar_state="collapsed")
    chrome = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    st.html(f"<style>{whole_style_sheet()}{chrome}</style>")
    arguments = parse_arguments(sys.argv[1:])
    names = [run.name for run in arguments.catalogue.runs()]
    view = current_view(arguments, names)
    _header(view, names)
    try:
        PAGES[view.page](arguments, view)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))
    remember_view(view)


def _header(view: View, names: list[str]) -> None:
    def chosen() -> None:
        view.page = st.session_state["page"] or view.page
        view.settle()

    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        st.html('<div class="ss-brand">Spec<b>Scope</b><span>tree speculation, step by step</span></div>')
        st.session_state["page"] = view.page
        pages = [page for page in PAGES if page != "diff" or view.has_pair]
        st.segmented_control(
            "Page", pages, format_func=TITLES.__getitem__, key="page", on_change=chosen, label_visibility="collapsed"
        )


main()
