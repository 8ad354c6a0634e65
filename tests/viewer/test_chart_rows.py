"""The numbers of charts: as rows, as a file, and where each of them leads."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from support.pages import Opener, checked, query_of
from support.traces import FUSED, load, store

from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.style.palette import LIGHT
from specscope.viewer.metrics import charts, tuning_charts
from specscope.viewer.metrics.numbers import RecordedLengths, RunMetrics, read_metrics
from specscope.viewer.metrics.rows import MOST_LISTED, chart_rows, csv_of, heads_of, numbers_table
from specscope.viewer.screens.metrics import LEFT, RIGHT


@pytest.fixture(scope="module")
def fused() -> RunMetrics:
    with TraceReader(FUSED) as reader:
        return read_metrics(reader, "fused.jsonl")


def test_rows_are_what_is_drawn(fused: RunMetrics) -> None:
    figure = tuning_charts.accepted_lengths([fused], LIGHT)
    rows = chart_rows(figure)
    assert [row.x for row in rows] == list(range(len(rows)))
    assert sum(row.y for row in rows) == pytest.approx(1)
    assert heads_of(figure)[1:3] == ["drafted nodes accepted in a step", "share of steps"]
    budgets = chart_rows(tuning_charts.other_budgets([fused], LIGHT))
    assert all(row.low is not None and row.high is not None and row.low <= row.y <= row.high for row in budgets)
    phases = chart_rows(charts.stage_times([fused], LIGHT))
    assert {"draft", "verify"} <= {row.x for row in phases}, "bars that lie have names across"
    assert all(row.high is not None and row.high >= row.y for row in phases)


def test_a_point_names_its_run_whole_however_long_the_name(fused: RunMetrics) -> None:
    names = [f"{'<b>' * 25}{end}.jsonl" for end in "ab"]  # shortened alike
    runs = [replace(fused, name=name) for name in names]
    for draw in (charts.stage_times, tuning_charts.accepted_lengths, tuning_charts.right_child):
        rows = chart_rows(draw(runs, LIGHT))
        assert len({row.name for row in rows}) == 1
        assert {row.run for row in rows} == set(names)


def test_a_file_has_all_digits_and_no_formulas() -> None:
    figure = go.Figure(go.Scatter(name="=&lt;b&gt;&amp;1", x=np.array([1, 2]), y=np.array([1 / 3, -2.0])))
    lines = list(csv.reader(io.StringIO(csv_of(figure))))
    assert lines[0] == ["curve", "name", "value", "from", "to"]
    assert lines[1] == ["'=<b>&1", "1", str(1 / 3), "", ""]
    assert lines[2][2] == "-2.0"


def test_a_table_is_well_formed_and_leads_where_its_rows_do() -> None:
    figure = go.Figure(go.Scatter(name="&lt;b&gt;", x=list(range(MOST_LISTED + 1)), y=[0.5] * (MOST_LISTED + 1)))
    drawn = ElementTree.fromstring(numbers_table(figure, "Depth", lambda row: f"?step={row.x}&run=<b>"))
    links = [link.get("href") for link in drawn.iter("a")]
    assert links[:2] == ["?step=0&run=<b>", "?step=1&run=<b>"]
    assert len(links) == MOST_LISTED
    assert "and 1 more, which the CSV has" in "".join(drawn.itertext())
    assert "<a " not in numbers_table(figure, "Depth", lambda row: None)
    assert numbers_table(go.Figure(), "Depth", lambda row: None) == ""


def asked(app: AppTest, monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> dict[str, str]:
    """Where a click on that point of a chart leads: Streamlit's harness selects no points."""
    point = {"selection": {"points": [{"curve_number": 0, "point_index": at}]}}
    draw: Callable[..., Any] = st.plotly_chart

    def plotly_chart(figure: go.Figure, *, key: str, on_select: object = "ignore", **others: object) -> None:
        if key == f"chart-{name}" and callable(on_select):
            with pytest.MonkeyPatch.context() as selected:
                selected.setattr(st, "session_state", {key: point})
                on_select()
        draw(figure, key=key, **others)

    monkeypatch.setattr(st, "plotly_chart", plotly_chart)
    return query_of(checked(app.run()))


@pytest.mark.parametrize(
    ("name", "at", "place"),
    [
        ("lengths", 2, {"page": "find", "find": "accepted:2"}),
        ("depth", 1, {"page": "find", "find": "accepted:>=2"}),
        ("depth-all", 0, {"page": "find", "find": "accepted:>=1"}),
        ("prompts", 1, {"page": "step", "turn": "1", "step": "0"}),
        ("speed", 1, {"page": "step", "turn": "1", "step": "0"}),
        ("course", 0, {"page": "step", "turn": "0", "step": "0"}),
    ],
)
def test_a_click_leads_to_the_steps(
    open_app: Opener, monkeypatch: pytest.MonkeyPatch, name: str, at: int, place: dict[str, str]
) -> None:
    query = asked(open_app(FUSED, page="metrics"), monkeypatch, name, at)
    assert query == {"run": "fused.jsonl", **place}


def test_a_range_of_positions_is_found_by_committed_length(open_app: Opener) -> None:
    app = open_app(FUSED, page="find", find="committed:>=20 committed:<=29")
    assert app.text_input(key="find-words").value == "committed:>=20 committed:<=29"
    checked(app.text_input(key="find-words").set_value("accepted:0").run())
    assert query_of(app)["find"] == "accepted:0"


def test_the_steps_of_a_course_are_those_that_were_recorded(fused: RunMetrics) -> None:
    assert fused.course is not None
    with TraceReader(FUSED) as reader:
        places = [(turn.turn, step) for turn in reader.turns for step in range(len(turn.steps))]
    assert [tuple(place) for place in fused.course.begins] == [places[at] for at in fused.course.bins.first]


def test_steps_are_found_where_a_turn_has_none(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines = [line for line in lines if line.get("kind") != "step" or line["turn"] != 1]  # a turn without steps
    steps = [at for at, line in enumerate(lines) if line["kind"] == "step"]
    path = store(lines, tmp_path / "run.jsonl")
    with TraceReader(path) as reader:
        recorded = read_metrics(reader, "run.jsonl").recorded
    assert recorded is not None
    places = [tuple(recorded.step_at(place)) for place in range(len(steps))]
    assert places == [(lines[at]["turn"], lines[at]["step"]) for at in steps]
    lists = [field for field in recorded if not isinstance(field, np.ndarray)]
    assert [len(each) for each in lists] == [3], "turns, and no list that has an entry per step"


def test_steps_of_turns_side_by_side_are_found_by_their_places_in_the_file() -> None:
    order = np.array([2, 0, 4, 1, 3])  # two turns of two and three steps, and one of none between them
    woven = RecordedLengths(np.zeros(5, dtype=np.int64), order, np.array([0, 2, 2]), [7, 8, 1 << 70])
    assert [tuple(woven.step_at(at)) for at in range(5)] == [(1 << 70, 0), (7, 0), (1 << 70, 2), (7, 1), (1 << 70, 1)]


def test_every_chart_that_counts_steps_leads_to_them() -> None:
    leading = {card.name for card in (*LEFT, *RIGHT) if card.leads is not None}
    assert leading == {"lengths", "depth-all", "depth", "course", "position", "prompts", "speed"}
