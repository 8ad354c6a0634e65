"""The Runs page: every trace below the files and folders of the command line, to pick one or two of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import streamlit as st

from specscope.tracer.files.index import has_index
from specscope.viewer.drawing.board import Board
from specscope.viewer.runs.catalogue import Run
from specscope.viewer.runs.checks import CHECKS, Stamp, stamp_of
from specscope.viewer.runs.summary import NoTrace, RunSummary, glance, suggest_pair, summarise
from specscope.viewer.runs.table import RunList, empty_board, run_board
from specscope.viewer.screens.inspector import show_board
from specscope.viewer.screens.session import LARGE_BYTES, Arguments, as_typed
from specscope.viewer.screens.view import View

#: Read without asking to build indexes, over all files; about a second.
INDEX_BYTES = 128 << 20
INDEX_BYTES_PER_SECOND = 128 << 20
#: From so many runs on there is a filter, and so many are shown at once.
FILTER_FROM, MOST_SHOWN = 8, 300
MAY_INDEX = "may_index"

Order = Literal["newest", "name", "accepted length", "steps", "size"]
ORDERS: tuple[Order, ...] = ("newest", "name", "accepted length", "steps", "size")


def show_runs_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    runs = arguments.catalogue.runs()
    if not runs:
        _show(empty_board(arguments.catalogue.folders), lambda _: None)
        return
    allowed: set[Stamp] = st.session_state.setdefault(MAY_INDEX, set())
    found = _summaries(runs, allowed)
    traces = [one for one in found if isinstance(one, RunSummary)]
    listed = _chosen(traces)[:MOST_SHOWN]
    suggested = suggest_pair(traces)
    unread = [one for one in listed if one.outcome is None]
    shown = RunList(
        runs=listed,
        folders=_by_folder(listed),
        no_traces=[one for one in found if isinstance(one, NoTrace)],
        baseline=view.baseline,
        candidate=view.candidate,
        suggested=(suggested[0].run.name, suggested[1].run.name) if suggested else None,
        seconds_to_index=sum(one.num_bytes for one in unread) / INDEX_BYTES_PER_SECOND if unread else None,
        left_out=_left_out(len(listed), len(traces), arguments.catalogue.is_whole),
    )
    _show(run_board(shown), lambda request: answer(view, shown, allowed, request))


def _show(board: Board, asked: Callable[[str], None]) -> None:
    show_board(board, key="runs", now=None, picked=None, on_pick=lambda _: None, on_request=asked)


def answer(view: View, shown: RunList, allowed: set[Stamp], request: str) -> None:
    """Does what a click asks for. The browser may ask for anything: what is not listed changes nothing.

    Args:
        view: changed where a run is picked.
        shown: the list that was clicked on.
        allowed: the files that may be read however large they are; those listed join them where that is asked for.
        request: what the click asks for.
    """
    what, _, where = request.partition(":")
    if request == "index:all":
        stamps = (stamp_of(one.run.path) for one in shown.runs if one.outcome is None)
        allowed.update(stamp for stamp in stamps if stamp is not None)
    elif request == "pair:chosen" and view.has_pair:
        _compare(view)
    elif request == "pair:suggested" and shown.suggested is not None:
        view.baseline, view.candidate = shown.suggested
        _compare(view)
    elif where.isascii() and where.isdecimal() and int(where) < len(shown.runs):
        name = shown.runs[int(where)].run.name
        if what == "run":
            view.run, view.page = name, "step"
            view.look_anew()
        elif what == "baseline":
            choose_side(view, "baseline", name)
        elif what == "candidate":
            choose_side(view, "candidate", name)


def choose_side(view: View, side: Literal["baseline", "candidate"], name: str) -> None:
    """Makes ``name`` that side of the comparison, or no longer so where it is; a pair that is complete is opened.

    Where both sides were chosen before, another choice does not open the comparison at once: the other may follow.
    """
    had_pair = view.has_pair
    other: Literal["baseline", "candidate"] = "candidate" if side == "baseline" else "baseline"
    setattr(view, side, None if getattr(view, side) == name else name)
    if getattr(view, other) == name:
        setattr(view, other, None)
    if view.has_pair and not had_pair:
        _compare(view)


def _compare(view: View) -> None:
    view.page, view.run = "diff", view.candidate
    view.look_anew()


def _left_out(num_listed: int, num_traces: int, is_whole: bool) -> str:
    words = [f"{num_listed:,} of {num_traces:,} runs are listed."] if num_listed < num_traces else []
    if not is_whole:
        words.append("Not every file below these folders was looked at: open a folder nearer to the one you miss.")
    return " ".join(words)


def _summaries(runs: Sequence[Run], allowed: set[Stamp]) -> list[RunSummary | NoTrace]:
    """One a run. What has no index is read only while that is quick, or where it is ``allowed``."""
    left = INDEX_BYTES
    found: list[RunSummary | NoTrace] = []
    with st.spinner("Reading what is not indexed yet", show_time=True):
        for run in runs:
            stamp = stamp_of(run.path)
            if stamp is None:
                found.append(NoTrace(run, "no such file: it has vanished, or was never there"))
                continue
            is_known = stamp in allowed or has_index(run.path)
            is_quick = stamp.num_bytes <= min(left, LARGE_BYTES)
            left -= stamp.num_bytes if is_quick and not is_known else 0
            found.append(_kept_summary(run, stamp) if is_known or is_quick else glance(run))
        return _with_checks(found)


def _with_checks(found: Sequence[RunSummary | NoTrace]) -> list[RunSummary | NoTrace]:
    """The same, with what the oracle found: it is asked about small files, as long as nobody has to wait for it."""
    stamps = {one.run: stamp_of(one.run.path) for one in found if isinstance(one, RunSummary) and one.outcome}
    CHECKS.check(stamp for stamp in stamps.values() if stamp is not None)
    told: list[RunSummary | NoTrace] = []
    for one in found:
        stamp = stamps.get(one.run)
        told.append(one if isinstance(one, NoTrace) or stamp is None else one._replace(checked=CHECKS.known(stamp)))
    return told


def _kept_summary(run: Run, stamp: Stamp) -> RunSummary | NoTrace:
    return _summary(run.name, stamp.num_bytes, (stamp.modified_ns, stamp.changed_ns), run)


@st.cache_resource(show_spinner=False, max_entries=4096)
def _summary(name: str, num_bytes: int, times: tuple[int, int], _run: Run) -> RunSummary | NoTrace:
    """Kept by what stands before the run: its path may hold bytes that are no text, which no key can."""
    return summarise(_run)


def _chosen(traces: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs that fit the filter, in the order asked for."""
    order: Order = "newest"
    wanted: list[str] = []
    if len(traces) >= FILTER_FROM:
        with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
            text = st.text_input("Filter", key="runs-filter", placeholder="name, mode, model, health", width=420)
            wanted = text.lower().split()
            order = st.selectbox("Order", ORDERS, key="runs-order", width=200)
    fitting = [one for one in traces if all(word in one.words for word in wanted)]
    return in_order(fitting, order)


def in_order(traces: Sequence[RunSummary], order: Order) -> list[RunSummary]:
    """``traces`` sorted; what a trace does not tell puts it last."""
    by_name = sorted(traces, key=lambda one: one.run.name)
    match order:
        case "name":
            return by_name
        case "newest":
            return sorted(by_name, key=lambda one: one.created, reverse=True)
        case "size":
            return sorted(by_name, key=lambda one: one.num_bytes, reverse=True)
        case "steps":
            return sorted(by_name, key=lambda one: one.outcome.num_steps if one.outcome else -1, reverse=True)
        case "accepted length":
            return sorted(by_name, key=_accepted_length, reverse=True)


def _accepted_length(one: RunSummary) -> float:
    mean = one.outcome.accepted_length if one.outcome else None
    return -1.0 if mean is None else mean


def _by_folder(runs: Sequence[RunSummary]) -> list[tuple[str, list[int]]]:
    folders: dict[str, list[int]] = {}
    for place, one in enumerate(runs):
        folders.setdefault(str(as_typed(one.run.path.parent)), []).append(place)
    return list(folders.items())
