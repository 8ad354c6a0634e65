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
from specscope.viewer.fragments import note
from specscope.viewer.session import Arguments, View, current_view, parse_arguments, remember_view
from specscope.viewer.step_page import show_step_page

PAGES = {"step": "Step", "diff": "Diff"}


def main() -> None:
    """One run of the script."""
    st.set_page_config(page_title="SpecScope", page_icon="🔬", layout="wide", initial_sidebar_state="collapsed")
    st.html(Path(__file__).with_name("style.css"))
    arguments = parse_arguments(sys.argv[1:])
    if not arguments.files:
        st.html(note("info", "No trace was given", ["Start the viewer with: specscope view FILE [FILE]"]))
        return
    view = current_view(len(arguments.files))
    _header(arguments, view)
    try:
        if view.page == "diff":
            show_diff_page(arguments, view)
        else:
            show_step_page(arguments, view)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))
    remember_view(view)


def _header(arguments: Arguments, view: View) -> None:
    def chosen() -> None:
        view.page = "diff" if st.session_state["page"] == "diff" else "step"

    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        st.html('<div class="ss-brand">Spec<b>Scope</b><span>tree speculation, step by step</span></div>')
        if len(arguments.files) > 1:
            st.session_state["page"] = view.page
            st.segmented_control(
                "Page",
                list(PAGES),
                format_func=PAGES.__getitem__,
                key="page",
                on_change=chosen,
                label_visibility="collapsed",
            )


main()
