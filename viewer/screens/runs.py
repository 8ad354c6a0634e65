"""The Runs page: every trace among the files and folders of the command line, to pick one or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import streamlit as st

from specscope.tracer.files.index import has_index
from specscope.viewer.drawing.board import Board
from specscope.viewer.runs.catalogue import Run
from specscope.viewer.runs.checks import CHECKS, Stamp, stamp_of
from specscope.viewer.runs.order import NEWEST, Order, in_order, requested
from specscope.viewer.runs.summary import NoTrace, RunSummary, glance, suggest_pair, summarise
from specscope.viewer.runs.table import RunList, empty_board, run_board
from specscope.viewer.screens.inspector import show_one_board
from specscope.viewer.screens.session import LARGE_BYTES, Arguments, as_typed
from specscope.viewer.screens.view import View, hidden_key

#: Bytes that are read without asking to build indexes, over all files; about a second.
INDEX_BYTES = 128 << 20
INDEX_BYTES_PER_SECOND = 128 << 20
#: From this many runs on there is a filter; and this many are shown at once.
FILTER_FROM, MOST_SHOWN = 8, 300
#: How often the list looks at what was checked meanwhile.
LOOK_SECONDS = 2.0
#: In the session's state: what was asked of the list.
ASKED = "runs-asked"


@dataclass
class Asked:
    """What somebody has asked of the list."""

    may_index: set[Stamp] = field(default_factory=set)  # files that may be read however large they are
    order: Order = NEWEST


def show_runs_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    runs = arguments.catalogue.runs()
    if not runs:
        _show(empty_board(arguments.catalogue.folders), view, lambda _: None)
        return
    asked: Asked = st.session_state.setdefault(ASKED, Asked())
    summaries = _summaries(runs, asked.may_index)
    traces = [summary for summary in summaries if isinstance(summary, RunSummary)]
    hidden = [summary for summary in traces if hidden_key(summary.run.name) in view.hidden]
    traces = [summary for summary in traces if hidden_key(summary.run.name) not in view.hidden]
    listed = in_order(_fitting(traces), asked.order)[:MOST_SHOWN]
    suggested = suggest_pair(listed)
    unread = [summary for summary in listed if summary.outcome is None]
    num_checking = CHECKS.check_later(filter(None, (stamp_of(run.run.path) for run in listed if run.outcome)))
    shown = RunList(
        runs=listed,
        folders=_by_folder(listed),
        hidden=hidden,
        no_traces=[summary for summary in summaries if isinstance(summary, NoTrace)],
        baseline=view.baseline,
        candidate=view.candidate,
        suggested=(suggested[0].run.name, suggested[1].run.name) if suggested else None,
        seconds_to_index=sum(summary.num_bytes for summary in unread) / INDEX_BYTES_PER_SECOND if unread else None,
        left_out=_left_out(len(listed), len(traces), arguments.catalogue.is_whole),
        num_checking=num_checking,
        order=asked.order,
    )

    def answered(request: str) -> None:
        answer(view, shown, asked, request)

    _show(run_board(shown), view, answered)
    if num_checking:
        _watch_checks(num_checking)


@st.fragment(run_every=LOOK_SECONDS)
def _watch_checks(num_checking: int) -> None:
    """Lists the runs again once more of them are checked."""
    if CHECKS.num_waiting < num_checking:
        st.rerun()


def _show(board: Board, view: View, asked: Callable[[str], None]) -> None:
    show_one_board(board, key="runs", title=view.title, on_request=asked)


def answer(view: View, shown: RunList, asked: Asked, request: str) -> None:
    """Does what a click asks for. The browser may ask for anything: what is not listed changes nothing.

    Args:
        view: changed where a run is picked, hidden or shown again.
        shown: the list that was clicked on.
        asked: changed where files are to be read, or the list is to be sorted.
        request: what the click asks for.
    """
    what, _, where = request.partition(":")
    if request == "index:all":
        stamps = (stamp_of(summary.run.path) for summary in shown.runs if summary.outcome is None)
        asked.may_index.update(stamp for stamp in stamps if stamp is not None)
    elif what in ("hide", "show"):
        _hide_or_show(view, shown, request)
    elif what == "order":
        asked.order = requested(request) or asked.order
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


def _hide_or_show(view: View, shown: RunList, request: str) -> None:
    """Takes a run from the list, or lists what was hidden again."""
    what, _, where = request.partition(":")
    runs = shown.runs if what == "hide" else shown.hidden
    if request == "show:all":
        view.hidden = ()
    elif where.isascii() and where.isdecimal() and int(where) < len(runs):
        key = hidden_key(runs[int(where)].run.name)
        hidden = {*view.hidden, key} if what == "hide" else {*view.hidden} - {key}
        view.hidden = tuple(sorted(hidden))


def choose_side(view: View, side: Literal["baseline", "candidate"], name: str) -> None:
    """Makes ``name`` that side of the comparison, or no side where it already is; a complete pair is opened.

    Where both sides were chosen before, another choice does not open the comparison: the other side may change next.
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
        words.append("Not every file below these folders was visited: open a folder closer to the one that is missing.")
    return " ".join(words)


def _summaries(runs: Sequence[Run], allowed: set[Stamp]) -> list[RunSummary | NoTrace]:
    """One per run. A file without an index is read only while that is quick, or where it is ``allowed``."""
    left = INDEX_BYTES
    summaries: list[RunSummary | NoTrace] = []
    with st.spinner("Reading files that are not indexed yet", show_time=True):
        for run in runs:
            stamp = stamp_of(run.path)
            if stamp is None:
                summaries.append(NoTrace(run, "no such file: it has vanished, or never existed"))
                continue
            is_known = stamp in allowed or has_index(run.path)
            is_quick = stamp.num_bytes <= min(left, LARGE_BYTES)
            left -= stamp.num_bytes if is_quick and not is_known else 0
            summaries.append(_kept_summary(run, stamp) if is_known or is_quick else glance(run))
        return _with_checks(summaries)


def _with_checks(summaries: Sequence[RunSummary | NoTrace]) -> list[RunSummary | NoTrace]:
    """The same with the oracle's report: small files are checked, as long as nobody has to wait for it."""
    indexed = (entry for entry in summaries if isinstance(entry, RunSummary) and entry.outcome)
    stamps = {entry.run: stamp_of(entry.run.path) for entry in indexed}
    CHECKS.check(stamp for stamp in stamps.values() if stamp is not None)
    return [_with_check(entry, stamps.get(entry.run)) for entry in summaries]


def _with_check(summary: RunSummary | NoTrace, stamp: Stamp | None) -> RunSummary | NoTrace:
    if isinstance(summary, NoTrace) or stamp is None:
        return summary
    return summary._replace(checked=CHECKS.known(stamp))


def _kept_summary(run: Run, stamp: Stamp) -> RunSummary | NoTrace:
    return _summary(run.name, stamp.num_bytes, (stamp.modified_ns, stamp.changed_ns), run)


@st.cache_resource(show_spinner=False, max_entries=4096)
def _summary(name: str, num_bytes: int, times: tuple[int, int], _run: Run) -> RunSummary | NoTrace:
    """Kept by the arguments before the run: its path may hold bytes that are not valid text, which no key can."""
    return summarise(_run)


def _fitting(traces: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs that fit what is typed into the filter."""
    if len(traces) < FILTER_FROM:
        return list(traces)
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        text = st.text_input("Filter", key="runs-filter", placeholder="name, mode, model, health", width=420, live=True)
    wanted = text.lower().split()
    return [trace for trace in traces if all(word in trace.words for word in wanted)]


def _by_folder(runs: Sequence[RunSummary]) -> list[tuple[str, list[int]]]:
    folders: dict[str, list[int]] = {}
    for place, summary in enumerate(runs):
        folders.setdefault(str(as_typed(summary.run.path.parent)), []).append(place)
    return list(folders.items())
