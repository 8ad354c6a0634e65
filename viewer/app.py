"""The viewer's Streamlit script: header, choice of page, errors in words. Started by ``specscope view``."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.board import whole_style_sheet
from specscope.viewer.drawing.fragments import note
from specscope.viewer.screens.session import Arguments, current_view, parse_arguments, remember_view
from specscope.viewer.screens.view import PageName, View

HERE = Path(__file__).parent
TITLES: dict[PageName, str] = {
    "runs": "Runs",
    "step": "Step",
    "diff": "Diff",
    "metrics": "Metrics",
    "health": "Trace health",
}


def main() -> None:
    """One run of the script."""
    st.set_page_config(
        page_title="SpecScope", page_icon=HERE / "icon.svg", layout="wide", initial_sidebar_state="collapsed"
    )
    chrome = (HERE / "style.css").read_text(encoding="utf-8")
    st.html(f"<style>{whole_style_sheet()}{chrome}</style>")
    arguments = parse_arguments(sys.argv[1:])
    names = [run.name for run in arguments.catalogue.runs()]
    view = current_view(arguments, names)
    _header(view, names)
    if view.missing is not None:
        lines = ["The link names it, but it is not among the files and folders that this viewer was started with."]
        st.html(note("warn", f"There is no run {shorten(view.missing, 200)} here", lines))
    try:
        _show_page(arguments, view)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))
    remember_view(view)


def _show_page(arguments: Arguments, view: View) -> None:
    """Each page is loaded when it is first opened: charts in particular load libraries that no other page needs."""
    if view.page == "runs":
        from specscope.viewer.screens.runs import show_runs_page as show
    elif view.page == "step":
        from specscope.viewer.screens.step import show_step_page as show
    elif view.page == "diff":
        from specscope.viewer.screens.diff import show_diff_page as show
    elif view.page == "metrics":
        from specscope.viewer.screens.metrics import show_metrics_page as show
    else:
        from specscope.viewer.screens.health import show_health_page as show
    show(arguments, view)


def _header(view: View, names: list[str]) -> None:
    def chosen() -> None:
        view.page = st.session_state["page"] or view.page
        view.missing = None
        view.settle()

    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        st.html('<div class="ss-brand">Spec<b>Scope</b><span>tree speculation, step by step</span></div>')
        st.session_state["page"] = view.page
        pages = [page for page in TITLES if page == "runs" or (view.has_pair if page == "diff" else view.run)]
        st.segmented_control(
            "Page", pages, format_func=TITLES.__getitem__, key="page", on_change=chosen, label_visibility="collapsed"
        )


main()
