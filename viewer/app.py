"""The viewer's Streamlit script: header, choice of page, errors in words. Started by ``specscope view``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.board import whole_style_sheet
from specscope.viewer.drawing.fragments import note
from specscope.viewer.screens.session import Arguments, current_view, parse_arguments, remember_view
from specscope.viewer.screens.view import PageName, View

#: In the session's state: the page that was asked for without what it is about.
LACKING = "page_without_run"
HERE = Path(__file__).parent
TITLES: dict[PageName, str] = {
    "runs": "Runs",
    "step": "Step",
    "text": "Text",
    "find": "Find",
    "timeline": "Timeline",
    "diff": "Diff",
    "metrics": "Metrics",
    "health": "Trace health",
}


def main() -> None:
    """One run of the script."""
    arguments = parse_arguments(sys.argv[1:])
    names = [run.name for run in arguments.catalogue.runs()]
    view = current_view(arguments, names)
    st.set_page_config(
        page_title=view.title, page_icon=HERE / "icon.svg", layout="wide", initial_sidebar_state="collapsed"
    )
    chrome = (HERE / "style.css").read_text(encoding="utf-8")
    st.html(f"<style>{whole_style_sheet()}{chrome}</style>")
    _header(arguments, view)
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
    elif view.page == "text":
        from specscope.viewer.screens.text import show_text_page as show
    elif view.page == "find":
        from specscope.viewer.screens.find import show_find_page as show
    elif view.page == "timeline":
        from specscope.viewer.screens.timeline import show_timeline_page as show
    elif view.page == "diff":
        from specscope.viewer.screens.diff import show_diff_page as show
    elif view.page == "metrics":
        from specscope.viewer.screens.metrics import show_metrics_page as show
    else:
        from specscope.viewer.screens.health import show_health_page as show
    show(arguments, view)


def _is_for(page: PageName, arguments: Arguments, view: View) -> bool:
    """Whether the page has anything to show of what was chosen."""
    if page == "timeline":
        from specscope.viewer.screens.timeline import is_pipelined

        return view.page == page or is_pipelined(arguments, view.run)
    return page == "runs" or (view.has_pair if page == "diff" else view.run is not None)


def _header(arguments: Arguments, view: View) -> None:
    def chosen() -> None:
        asked: PageName = st.session_state["page"] or view.page
        if asked in lacking:
            st.session_state[LACKING] = asked
            return
        view.page = asked
        view.missing = None
        view.settle()

    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        st.html('<h1 class="ss-brand">Spec<b>Scope</b><span>tree speculation, step by step</span></h1>')
        st.session_state["page"] = view.page
        pages = [page for page in TITLES if page != "timeline" or _is_for(page, arguments, view)]
        lacking = [page for page in pages if not _is_for(page, arguments, view)]
        st.segmented_control(
            "Page", pages, format_func=TITLES.__getitem__, key="page", on_change=chosen, label_visibility="collapsed"
        )
    if lacking:
        st.html(_greyed([pages.index(page) + 1 for page in lacking]))
    asked_for: PageName | None = st.session_state.pop(LACKING, None)
    if asked_for is not None:
        needs = "a baseline and a candidate" if asked_for == "diff" else "a run"
        st.html(note("info", f"{TITLES[asked_for]} needs {needs}", ["Pick it on the page Runs."]))


def _greyed(places: Sequence[int]) -> str:
    """A style sheet that greys the buttons of the bar at ``places``, counted from 1."""
    chosen = ",".join(f":nth-child({at})" for at in places)
    buttons = f'.st-key-header [data-testid="stButtonGroup"] button:is({chosen})'
    return f"<style>{buttons} {{ background: var(--ss-surface) }} {buttons} p {{ color: var(--ss-muted) }}</style>"


main()
