"""The Metrics page: acceptance, stage times and speed of one run, or of two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.fragments import facts, heading, note, quiet
from specscope.viewer.drawing.frames import box
from specscope.viewer.drawing.markup import joined
from specscope.viewer.drawing.style.palette import DARK, LIGHT, Palette
from specscope.viewer.drawing.tables.plain import plain_table
from specscope.viewer.metrics import charts
from specscope.viewer.metrics.numbers import RunMetrics, read_metrics
from specscope.viewer.metrics.words import (
    depth_remarks,
    fact_entries,
    phase_lines,
    position_remarks,
    speed_remarks,
    table_lines,
    times_remarks,
)
from specscope.viewer.screens.controls import choose_run
from specscope.viewer.screens.session import Arguments, run_named
from specscope.viewer.screens.view import View

Draw = Callable[[Sequence[RunMetrics], Palette], go.Figure]
Remarks = Callable[[RunMetrics], list[str]]
SIDES = ("baseline", "candidate")


def show_metrics_page(arguments: Arguments, view: View) -> None:
    """The whole page. Of a pair it shows both, the baseline first, unless only one is asked for."""
    names = [view.run]
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        choose_run(arguments, view)
        if view.has_pair and view.run in (view.baseline, view.candidate):
            both = st.toggle("Baseline and candidate together", value=True, key="metrics-both")
            names = [view.baseline, view.candidate] if both else names
    runs = []
    for name in names:
        run = run_named(arguments, name)
        with TraceReader(run.path) as reader:
            runs.append(_metrics(run.name, reader.index.stamp, run.path))
    _show(runs)


@st.cache_resource(show_spinner="Reading the turns, and some of the steps", max_entries=16)
def _metrics(name: str, stamp: str, _path: Path) -> RunMetrics:
    """Kept by name and stamp: a path may hold bytes that are not valid text, which no key can."""
    with TraceReader(_path) as reader:
        return read_metrics(reader, name)


@dataclass(frozen=True, kw_only=True)
class _Card:
    """A figure with its title and remarks."""

    name: str
    title: str
    aside: str = ""
    draw: Draw
    remarks: Remarks


OVER_TIME = "Tokens per step = accepted length + 1. Points: mean of a range of steps. Line: mean of all steps so far."
LEFT = (
    _Card(
        name="depth",
        title="Acceptance by depth",
        aside="of the steps that reached it",
        draw=charts.depth_of_reached,
        remarks=depth_remarks,
    ),
    _Card(
        name="position",
        title="Acceptance by position",
        draw=charts.acceptance_by_position,
        remarks=position_remarks,
    ),
    _Card(name="times", title="Time by phase", draw=charts.stage_times, remarks=times_remarks),
)
RIGHT = (
    _Card(
        name="depth-all",
        title="Acceptance by depth",
        aside="of all steps",
        draw=charts.depth_of_all,
        remarks=depth_remarks,
    ),
    _Card(
        name="course",
        title="Tokens per step over the run",
        draw=charts.tokens_over_time,
        remarks=lambda _: [OVER_TIME],
    ),
    _Card(name="speed", title="Tokens per second by turn", draw=charts.speed_by_turn, remarks=speed_remarks),
)


def _show(runs: Sequence[RunMetrics]) -> None:
    _show_numbers(runs)
    if not any(run.num_steps for run in runs):
        lines = ["No step was recorded: decode a prompt, then reload."]
        st.html(note("info", "There is nothing to measure yet", lines))
        return
    for column, cards in zip(st.columns(2, gap="small"), (LEFT, RIGHT), strict=True):
        with column:
            for card in cards:
                _show_card(card, runs)


def _show_numbers(runs: Sequence[RunMetrics]) -> None:
    """The facts of one run with its phases; of two a table of both, with ratios."""
    if len(runs) == 1:
        st.html(box(facts(fact_entries(runs[0]))))
        return
    head = ["", *(f"{side} {run.name}" for side, run in zip(SIDES, runs, strict=True)), "candidate / baseline"]
    st.html(
        box(heading("Both runs", "ratios above 1 mean more in the candidate"), plain_table(head, table_lines(runs)))
    )


def _show_card(card: _Card, runs: Sequence[RunMetrics]) -> None:
    """The figure, and below it its remarks, once where they are the same for both runs."""
    palette = DARK if st.context.theme.type == "dark" else LIGHT
    figure = card.draw(runs, palette)
    with st.container(border=True, key=f"card-{card.name}"):
        st.html(heading(card.title, card.aside))
        if any(len(trace.x) for trace in figure.data):
            st.plotly_chart(figure, key=f"chart-{card.name}", theme=None, config={"displayModeBar": False})
        st.html(joined(quiet(line) for line in _remark_lines(card, runs) if line))
        if card.name == "times" and len(runs) == 1 and runs[0].times is not None:
            st.html(plain_table(("phase", "median ms", "90th percentile ms", "share"), phase_lines(runs[0].times)))


def _remark_lines(card: _Card, runs: Sequence[RunMetrics]) -> list[str]:
    remarks = {run.name: " ".join(card.remarks(run)) for run in runs}
    if len(set(remarks.values())) == 1:
        return list(remarks.values())[:1]
    return [f"{name}: {words}" for name, words in remarks.items()]
