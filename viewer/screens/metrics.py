"""The Metrics page: acceptance, stage times and speed of one run, or of two beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.fragments import facts, heading, note, quiet
from specscope.viewer.drawing.frames import box
from specscope.viewer.drawing.palette import DARK, LIGHT, Palette
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
    """The whole page. Of a pair it shows both, the baseline first, unless one alone is asked for."""
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
    """Kept by name and stamp: a path may hold bytes that are no text, which no key can."""
    with TraceReader(_path) as reader:
        return read_metrics(reader, name)


def _show(runs: Sequence[RunMetrics]) -> None:
    _show_numbers(runs)
    if not any(run.num_steps for run in runs):
        st.html(
            note("info", "There is nothing to measure yet", ["No step was recorded: decode a prompt, then reload."])
        )
        return
    over_time = (
        "Tokens per step = accepted length + 1. Points: mean of a range of steps; line: mean of all steps so far."
    )
    left, right = st.columns(2, gap="small")
    with left:
        _card(
            "depth", "Acceptance by depth", "of the steps that got so far", charts.depth_of_reached, runs, depth_remarks
        )
        _card("position", "Acceptance by position", "", charts.acceptance_by_position, runs, position_remarks)
        _card("times", "Time by phase", "", charts.stage_times, runs, times_remarks)
    with right:
        _card("depth-all", "Acceptance by depth", "of all steps", charts.depth_of_all, runs, depth_remarks)
        _card("course", "Tokens per step over the run", "", charts.tokens_over_time, runs, lambda _: [over_time])
        _card("speed", "Tokens per second by turn", "", charts.speed_by_turn, runs, speed_remarks)


def _show_numbers(runs: Sequence[RunMetrics]) -> None:
    """The facts of one run with its phases; of two a table of both, with ratios."""
    if len(runs) == 1:
        st.html(box(facts(fact_entries(runs[0]))))
        return
    head = ["", *(f"{side} {run.name}" for side, run in zip(SIDES, runs, strict=True)), "candidate / baseline"]
    st.html(
        box(heading("Both runs", "ratios above 1 mean more in the candidate"), plain_table(head, table_lines(runs)))
    )


def _card(name: str, title: str, aside: str, draw: Draw, runs: Sequence[RunMetrics], remarks: Remarks) -> None:
    """A card with a figure, and below it what it is of, once where the same holds for both runs."""
    palette = DARK if st.context.theme.type == "dark" else LIGHT
    figure = draw(runs, palette)
    with st.container(border=True, key=f"card-{name}"):
        st.html(heading(title, aside))
        if any(len(trace.x) for trace in figure.data):
            st.plotly_chart(figure, key=f"chart-{name}", theme=None, config={"displayModeBar": False})
        said = {run.name: " ".join(remarks(run)) for run in runs}
        same = len(set(said.values())) == 1
        lines = list(said.values())[:1] if same else [f"{run}: {words}" for run, words in said.items()]
        st.html("".join(quiet(line) for line in lines if line))
        if name == "times" and len(runs) == 1 and runs[0].times is not None:
            st.html(plain_table(("phase", "median ms", "90th percentile ms", "share"), phase_lines(runs[0].times)))
