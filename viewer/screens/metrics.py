"""The Metrics page: acceptance, stage times and speed of one run, or of two side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

import plotly.graph_objects as go
import streamlit as st

from specscope.tracer.export.perfetto import perfetto_trace
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import shorten, visible
from specscope.tracer.tuning.summary import json_of
from specscope.viewer.drawing.fragments import facts, heading, note, quiet
from specscope.viewer.drawing.frames import box
from specscope.viewer.drawing.markup import NOTHING, Markup, joined
from specscope.viewer.drawing.style.palette import DARK, LIGHT, Palette
from specscope.viewer.drawing.tables.plain import plain_table
from specscope.viewer.metrics import charts, tuning_charts
from specscope.viewer.metrics.charts import MOST_RUNS
from specscope.viewer.metrics.numbers import RunMetrics, read_metrics
from specscope.viewer.metrics.rows import ChartRow, chart_rows, csv_of, numbers_table
from specscope.viewer.metrics.smooth import POSITIONS, STEPS, TURNS, Axis
from specscope.viewer.metrics.words import (
    course_remarks,
    depth_remarks,
    fact_entries,
    phase_lines,
    position_remarks,
    repetition_notes,
    shape_remarks,
    speed_remarks,
    speed_up_facts,
    table_lines,
    times_remarks,
    tuning_remarks,
    turn_remarks,
    what_if_remarks,
)
from specscope.viewer.screens.chart_places import (
    Leads,
    find_depth,
    find_length,
    find_position,
    open_recorded,
    open_turn,
)
from specscope.viewer.screens.chart_tools import show_chart_tools
from specscope.viewer.screens.chart_zoom import Zoom, choose_sight
from specscope.viewer.screens.controls import choose_run
from specscope.viewer.screens.session import Arguments, run_named
from specscope.viewer.screens.view import View

Draw = Callable[[Sequence[RunMetrics], Palette], go.Figure]
Remarks = Callable[[RunMetrics], list[str]]
SIDES = ("baseline", "candidate")
CHART = {"displayModeBar": False}


def no_remarks(_: RunMetrics) -> list[str]:
    """Nothing to say."""
    return []


def show_metrics_page(arguments: Arguments, view: View) -> None:
    """The whole page. Of a pair it shows both, the baseline first, unless only one is asked for."""
    names = [view.run]
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        choose_run(arguments, view)
        if view.has_pair and view.run in (view.baseline, view.candidate):
            both = st.toggle("Baseline and candidate together", value=True, key="metrics-both")
            names = [view.baseline, view.candidate] if both else names
        names += _further(arguments, names)
    runs = []
    for name in names:
        run = run_named(arguments, name)
        with TraceReader(run.path) as reader:
            runs.append(_metrics(run.name, reader.index.stamp, run.path))
    _show(_Page(arguments, view, runs))


def _further(arguments: Arguments, names: Sequence[str | None]) -> list[str]:
    """Runs to lay over the others."""
    others = [run.name for run in arguments.catalogue.runs() if run.name not in names]
    if not others:
        return []
    most = MOST_RUNS - len(names)
    return st.multiselect("And", others, format_func=visible, key="metrics-also", max_selections=most, width=320)


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
    leads: Leads | None = None  # where a click on it leads
    axis: Axis | None = None  # that can be looked at in parts, and smoothed


LEFT = (
    _Card(
        name="lengths",
        title="Accepted length",
        aside="share of steps",
        draw=tuning_charts.accepted_lengths,
        remarks=no_remarks,
        leads=find_length,
    ),
    _Card(
        name="right-child",
        title="Which child was right",
        aside="at every node where a walk stood",
        draw=tuning_charts.right_child,
        remarks=tuning_remarks,
    ),
    _Card(
        name="calibration",
        title="Is the drafter calibrated?",
        aside="area: children; dotted: as it should be",
        draw=tuning_charts.calibration,
        remarks=no_remarks,
    ),
    _Card(
        name="depth-all",
        title="Acceptance by depth, of all steps",
        draw=charts.depth_of_all,
        remarks=depth_remarks,
        leads=find_depth,
    ),
    _Card(
        name="course",
        title="Tokens per step over the run",
        draw=charts.tokens_over_time,
        remarks=course_remarks,
        leads=open_recorded,
        axis=STEPS,
    ),
    _Card(name="times", title="Time by phase", draw=charts.stage_times, remarks=times_remarks),
)
RIGHT = (
    _Card(
        name="depth",
        title="Acceptance by depth",
        aside="given that the parent was accepted",
        draw=charts.depth_of_reached,
        remarks=depth_remarks,
        leads=find_depth,
    ),
    _Card(
        name="budgets",
        title="What would another budget have accepted?",
        draw=tuning_charts.other_budgets,
        remarks=what_if_remarks,
    ),
    _Card(
        name="shapes",
        title="What would a smaller depth or top-k have accepted?",
        draw=tuning_charts.other_shapes,
        remarks=shape_remarks,
    ),
    _Card(
        name="prompts",
        title="Accepted length by turn",
        aside="with intervals",
        draw=tuning_charts.by_prompt,
        remarks=turn_remarks,
        leads=open_turn,
    ),
    _Card(
        name="position",
        title="Acceptance by position",
        draw=charts.acceptance_by_position,
        remarks=position_remarks,
        leads=find_position,
        axis=POSITIONS,
    ),
    _Card(
        name="speed",
        title="Tokens per second by turn",
        draw=charts.speed_by_turn,
        remarks=speed_remarks,
        leads=open_turn,
        axis=TURNS,
    ),
)

#: The cards that say something of a run that drafts nothing.
OF_ANY_RUN = ("times", "speed")


@dataclass(frozen=True)
class _Page:
    """What the cards are about, and what a click on them changes."""

    arguments: Arguments
    view: View
    runs: Sequence[RunMetrics]

    def follow(self, card: _Card, row: ChartRow, view: View) -> None:
        """Leads ``view`` to where a point of a chart that leads somewhere does."""
        run = next((run for run in self.runs if run.name == row.run), self.runs[0])
        assert card.leads is not None
        view.run = run.name
        card.leads(view, run, row)

    def link(self, card: _Card, row: ChartRow) -> str | None:
        """The same as a link; None where the chart leads nowhere."""
        if card.leads is None:
            return None
        view = replace(self.view)
        self.follow(card, row, view)
        return f"?{urlencode(view.to_query(), errors='surrogatepass')}"


def _show(page: _Page) -> None:
    runs = page.runs
    heads = joined(joined([_head(run, len(runs)), facts(fact_entries(run))]) for run in runs)
    st.html(box(heads, kind="ss-runs-facts"))
    speed_up = speed_up_facts(runs)
    if speed_up:
        st.html(box(facts(speed_up)))
    loops = repetition_notes(runs)
    if loops:
        st.html(note("warn", "Output repeats itself, which almost any drafter foresees", loops))
    if not any(run.num_steps for run in runs):
        lines = ["No step was recorded: decode a prompt, then reload."]
        st.html(note("info", "There is nothing to measure yet", lines))
        return
    columns: tuple[tuple[_Card, ...], ...] = (LEFT, RIGHT)
    if all(run.is_plain for run in runs):
        st.html(note("info", "Nothing was drafted, so there is no acceptance to measure", ["Times and speed remain."]))
        columns = tuple(tuple(card for card in cards if card.name in OF_ANY_RUN) for cards in columns)
    with st.container(key="charts"):
        for column, cards in zip(st.columns(2, gap="small"), columns, strict=True):
            with column:
                _show_cards(cards, page)
    _show_table(page)


def _show_cards(cards: Sequence[_Card], page: _Page) -> None:
    for card in cards:
        if card.axis is None:
            _show_card(card, page)
        else:
            _show_zoomed(card, card.axis, page)


def _head(run: RunMetrics, num_runs: int) -> Markup:
    """The run's name, where there are several."""
    return heading(run.name) if num_runs > 1 else NOTHING


def _show_table(page: _Page) -> None:
    """All numbers side by side; of two runs with ratios."""
    runs = page.runs
    names = [shorten(run.name, 60) for run in runs]
    if len(runs) == 2:
        names = [f"{side} {name}" for side, name in zip(SIDES, names, strict=True)]
    ratios = ["second / first", "95 % of resampled ratios"] if len(runs) == 2 else []
    aside = "ratios above 1 mean more in the second; speeds of runs that were not recorded together also differ by load"
    table = plain_table(["measure", *names, *ratios], table_lines(runs))
    st.html(box(heading("Numbers", aside if ratios else ""), table))
    numbers = {"runs": [{"name": run.name, **json_of(run.tuning)} for run in runs]}
    as_json = json.dumps(numbers, indent=1).encode("utf-8", "surrogatepass")
    with st.container(horizontal=True):
        st.download_button(
            "Download as JSON", as_json, "metrics.json", "application/json", key="metrics-json", on_click="ignore"
        )
        _offer_timings(page)


def _offer_timings(page: _Page) -> None:
    """A file of when the phases of the run that is chosen were at work; it is made once somebody wants it."""
    name = page.view.run
    if not any(run.name == name and run.times is not None for run in page.runs):
        return
    path = run_named(page.arguments, name).path
    st.download_button(
        "Download timings for Perfetto",
        lambda: _timings(path),
        f"{path.stem}.perfetto.json",
        "application/json",
        key="metrics-timings",
        help="A track for each turn and a slice for each phase: open the file at ui.perfetto.dev",
        on_click="ignore",
    )


def _timings(path: Path) -> bytes:
    with TraceReader(path) as reader:
        return json.dumps(perfetto_trace(reader)).encode()


@st.fragment
def _show_zoomed(card: _Card, axis: Axis, page: _Page) -> None:
    """A card whose axis can be looked at in parts: it alone is drawn again while somebody does."""
    if page.view.page != "metrics":  # a click has led elsewhere
        st.rerun(scope="app")
    with st.container(border=True, key=f"card-{card.name}"):
        whole = axis.whole(page.runs)
        above = st.container(gap="small")
        zoom = None if whole is None else choose_sight(card.name, axis, whole)
        seen = page if zoom is None else replace(page, runs=[axis.seen(run, zoom.sight) for run in page.runs])
        with above:
            _fill_card(card, seen, zoom)


def _show_card(card: _Card, page: _Page) -> None:
    with st.container(border=True, key=f"card-{card.name}"):
        _fill_card(card, page, None)


def _fill_card(card: _Card, page: _Page, zoom: Zoom | None) -> None:
    """The figure, and below it its remarks, once where they are the same for both runs."""
    runs = page.runs
    palette = DARK if st.context.theme.type == "dark" else LIGHT
    figure = card.draw(runs, palette)
    has_points = any(len(trace.x) for trace in figure.data)
    with st.container(horizontal=True, wrap=False, gap="small"):
        st.html(heading(card.title, card.aside))
        if has_points:
            name = f"{runs[0].name}-{card.name}".replace("/", "-")
            show_chart_tools(
                key=f"save-{card.name}",
                name=name,
                title=card.title,
                csv=csv_of(figure),
                on_zoom=None if zoom is None else zoom.take,
            )
    if has_points:
        _show_chart(card, page, figure, zoom)
    remarks = joined(quiet(line) for line in _remark_lines(card, runs) if line)
    if remarks:
        st.html(remarks)
    if card.name == "times" and len(runs) == 1 and runs[0].times is not None:
        st.html(plain_table(("phase", "median ms", "90th percentile ms", "share"), phase_lines(runs[0].times)))


def _show_chart(card: _Card, page: _Page, figure: go.Figure, zoom: Zoom | None) -> None:
    """The chart, a click on which leads to its steps, and its numbers, which lead there by keyboard as well."""
    key = f"chart-{card.name}{zoom.key if zoom is not None else ''}"

    def clicked() -> None:
        for point in st.session_state[key]["selection"]["points"][:1]:
            place = (point.get("curve_number"), point.get("point_index"))
            for row in (row for row in chart_rows(figure) if (row.curve, row.at) == place):
                page.follow(card, row, page.view)

    if card.leads is None:
        st.plotly_chart(figure, key=key, theme=None, config=CHART, alt=card.title)
    else:
        if zoom is not None:
            figure.update_layout(dragmode="zoom", xaxis_fixedrange=False)  # what is dragged across is asked for
        with st.container(key=f"leads-{card.name}"):
            st.plotly_chart(
                figure,
                key=key,
                theme=None,
                config=CHART,
                alt=card.title,
                on_select=clicked,
                selection_mode="points",
            )
    st.html(numbers_table(figure, card.title, lambda row: page.link(card, row)))


def _remark_lines(card: _Card, runs: Sequence[RunMetrics]) -> list[str]:
    remarks = {run.name: " ".join(card.remarks(run)) for run in runs}
    if len(set(remarks.values())) == 1:
        return list(remarks.values())[:1]
    return [f"{name}: {words}" for name, words in remarks.items()]
