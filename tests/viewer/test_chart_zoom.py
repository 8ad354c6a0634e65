"""Charts looked at in parts and smoothed: what is drawn then, against a slow count, and what the controls do."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import streamlit as st
from hypothesis import given
from hypothesis import strategies as some
from streamlit.testing.v1 import AppTest
from support.pages import Opener, checked, html_of, query_of
from support.traces import EAGER, FUSED, load

from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.style.palette import LIGHT
from specscope.viewer.metrics import charts
from specscope.viewer.metrics.numbers import MOVING, RunMetrics, TurnSpeed, over_time, read_metrics
from specscope.viewer.metrics.rows import chart_rows
from specscope.viewer.metrics.smooth import POSITIONS, STEPS, TURNS, Sight, Stretch, moving_mean
from specscope.viewer.metrics.words import course_remarks, position_remarks, speed_remarks
from specscope.viewer.screens.chart_zoom import OFF, Zoom


@pytest.fixture(scope="module")
def fused() -> RunMetrics:
    with TraceReader(FUSED) as reader:
        return read_metrics(reader, "fused.jsonl")


def tokens_of(path: Path) -> list[int]:
    return [line["accept"]["accepted_length"] + 1 for line in load(path) if line["kind"] == "step"]


@given(some.lists(some.integers(0, 9), min_size=1, max_size=80), some.data())
def test_a_part_of_a_course_is_that_part_and_its_mean_reaches_further_back(
    lengths: list[int], data: some.DataObject
) -> None:
    first = data.draw(some.integers(0, len(lengths) - 1))
    end = data.draw(some.integers(first + 1, len(lengths)))
    mean_of = data.draw(some.integers(1, 30))
    course = over_time(np.array(lengths), range(first, end), mean_of)
    assert course.bins.first.tolist() == list(range(first, end))
    assert course.bins.mean.tolist() == [length + 1 for length in lengths[first:end]]
    slow = [fmean(length + 1 for length in lengths[max(0, at + 1 - mean_of) : at + 1]) for at in range(first, end)]
    assert course.moving.tolist() == pytest.approx(slow)


@given(
    some.lists(some.tuples(some.floats(0, 1e6), some.floats(0.1, 100)), min_size=1, max_size=40), some.integers(1, 50)
)
def test_a_moving_mean_weighs_its_entries(entries: list[tuple[float, float]], mean_of: int) -> None:
    totals, sizes = zip(*entries, strict=True)
    means = moving_mean(totals, sizes, mean_of)
    assert means is not None
    for at, mean in enumerate(means):
        part = entries[max(0, at + 1 - mean_of) : at + 1]
        assert mean == pytest.approx(sum(total for total, _ in part) / sum(size for _, size in part), abs=1e-3)
    assert moving_mean(totals, sizes, None) is None


def test_what_is_seen_of_each_axis(fused: RunMetrics) -> None:
    tokens = tokens_of(FUSED)
    assert STEPS.whole([fused]) == Stretch(0, len(tokens) - 1)
    part = STEPS.seen(fused, Sight(Stretch(5, 9), 2))
    assert part.course is not None
    assert part.course.bins.mean.tolist() == tokens[5:10]
    assert part.course.begins == fused.course.begins[5:10] if fused.course is not None else False
    rows = chart_rows(charts.tokens_over_time([part], LIGHT))
    assert {row.name for row in rows} == {"fused.jsonl", "fused.jsonl, mean of 2 steps"}
    assert {row.run for row in rows} == {"fused.jsonl"}, "a point of the mean leads into its run as well"

    inside = [(s["commit"]["committed_before"], s["accept"]["accepted_length"]) for s in load(FUSED) if "commit" in s]
    inside = [entry for entry in inside if 40 <= entry[0] <= 60]
    places = POSITIONS.seen(fused, Sight(Stretch(40, 60))).positions
    assert places is not None
    assert (places.sizes.sum(), (places.mean * places.sizes).sum()) == (len(inside), sum(n for _, n in inside))
    assert POSITIONS.seen(fused, Sight(Stretch(10**6, 10**6 + 5))).positions is None

    assert TURNS.whole([fused]) is None, "three turns need no zoom"
    turns = [TurnSpeed(at, "p", 10 * (at + 1), 2.0) for at in range(30)]
    many = replace(fused, speed=replace(fused.speed, turns=turns))
    assert TURNS.whole([many, fused]) == Stretch(0, 29)
    assert [turn.turn for turn in TURNS.seen(many, Sight(Stretch(3, 5))).speed.turns] == [3, 4, 5]
    hostile = replace(many, speed=replace(many.speed, turns=[turns[0], turns[1]._replace(turn=1 << 70)]))
    assert TURNS.whole([hostile]) is None, "no browser counts so far"
    assert STEPS.whole([replace(fused, recorded=None)]) is None


def test_a_mean_is_off_at_first_but_for_the_course_and_named_with_its_size(fused: RunMetrics) -> None:
    assert (STEPS.mean_of, POSITIONS.mean_of, TURNS.mean_of) == (MOVING, None, None)
    for axis, draw, remarks in (
        (STEPS, charts.tokens_over_time, course_remarks),
        (POSITIONS, charts.acceptance_by_position, position_remarks),
        (TURNS, charts.speed_by_turn, speed_remarks),
    ):
        off, on = axis.seen(fused, Sight()), axis.seen(fused, Sight(None, 3))
        assert len(draw([off], LIGHT).data) == 1
        assert "Line:" not in " ".join(remarks(off))
        line = draw([on], LIGHT).data[-1]
        assert line.name == f"fused.jsonl, mean of 3 {axis.smoothed}"
        assert f"Line: mean of the last 3 {axis.smoothed}." in " ".join(remarks(on))


def test_where_a_mean_begins_anew_is_said(fused: RunMetrics) -> None:
    for axis, remarks in ((POSITIONS, position_remarks), (TURNS, speed_remarks), (STEPS, course_remarks)):
        part, whole = (axis.seen(fused, Sight(stretch, 3)) for stretch in (axis.extent(fused), None))
        begins_anew = "It begins anew at the left edge" in " ".join(remarks(part))
        assert begins_anew == (axis is not STEPS), "the mean of the course reaches further back"
        assert "begins anew" not in " ".join(remarks(whole))


def figure_titled(app: AppTest, words: str) -> dict[str, Any]:
    figures = [json.loads(element.proto.spec) for element in app.get("plotly_chart")]
    return next(figure for figure in figures if figure["layout"]["xaxis"]["title"].get("text", "").startswith(words))


def drawn_steps(app: AppTest) -> list[int]:
    return steps_in(figure_titled(app, "step of the run")["data"][0])


def steps_in(trace: dict[str, Any]) -> list[int]:
    """Where the points of a trace lie; plotly packs numbers."""
    packed = trace["x"]
    steps: list[int] = np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"]).tolist()
    return steps


def test_the_slider_zooms_and_the_button_takes_it_back(open_app: Opener) -> None:
    app = open_app(FUSED, page="metrics")
    last = len(tokens_of(FUSED)) - 1
    assert drawn_steps(app) == list(range(last + 1))
    slider = next(slider for slider in app.slider if slider.label == "Steps shown")
    assert (slider.min, slider.max) == (0, last)
    assert app.button(key="whole-course").disabled
    checked(slider.set_value((4, 20)).run())
    assert drawn_steps(app) == list(range(4, 21))
    checked(app.button(key="whole-course").click().run())
    assert drawn_steps(app) == list(range(last + 1))


def zoomed_course() -> None:
    import streamlit as st

    from specscope.viewer.metrics.smooth import STEPS, Stretch
    from specscope.viewer.screens.chart_zoom import choose_sight

    whole = Stretch(0, st.session_state.num_steps - 1)
    st.session_state.sight = choose_sight("course", STEPS, whole).sight


@pytest.mark.parametrize(
    ("shown", "num_steps", "then"),
    [
        ((4, 20), 50, (4, 20)),
        ((0, 36), 50, (0, 49)),  # who looks at all does so when there is more
        ((4, 20), 15, (4, 14)),
        ((18, 20), 15, (0, 14)),  # nothing of it is left
    ],
)
def test_a_stretch_stays_when_the_axis_changes(shown: tuple[int, int], num_steps: int, then: tuple[int, int]) -> None:
    app = AppTest.from_function(zoomed_course)
    app.session_state.num_steps = 37
    checked(app.run())
    assert app.session_state.sight.stretch is None
    checked(app.slider[0].set_value(shown).run())
    app.session_state.num_steps = num_steps
    for _ in range(2):  # and stays so
        checked(app.run())
        assert app.slider[0].value == then
    is_all = then == (0, num_steps - 1)
    assert app.session_state.sight.stretch == (None if is_all else Stretch(*then))


def test_the_moving_mean_is_a_choice(open_app: Opener) -> None:
    app = open_app(FUSED, page="metrics")
    assert f"Line: mean of the last {MOVING} steps." in html_of(app)
    assert len(figure_titled(app, "committed length")["data"]) == 1
    checked(app.selectbox(key="mean-course").set_value(OFF).run())
    assert len(figure_titled(app, "step of the run")["data"]) == 1
    checked(app.selectbox(key="mean-position").set_value("3 ranges").run())
    assert figure_titled(app, "committed length")["data"][1]["name"] == "fused.jsonl, mean of 3 ranges"
    assert "Line: mean of the last 3 ranges." in html_of(app)


def test_a_pair_has_one_stretch_for_both(open_app: Opener) -> None:
    app = open_app(EAGER, FUSED, page="metrics")
    checked(next(slider for slider in app.slider if slider.label == "Steps shown").set_value((2, 15)).run())
    for trace in figure_titled(app, "step of the run")["data"]:
        assert steps_in(trace) == list(range(2, 16))
    assert query_of(app)["page"] == "metrics"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("18.5 42.4", (19, 42)),
        ("42.4 18.5", (19, 42)),
        ("-7 3", (0, 3)),
        ("50 1e9", (50, 99)),
        ("", (0, 99)),
        ("5.2 5.8", None),
        ("nan 3", None),
        ("-inf inf", None),
        ("1 2 3", None),
        ("<b>", None),
        ("200 300", None),
    ],
)
def test_what_was_dragged_across_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, asked: str, kept: tuple[int, int] | None
) -> None:
    state: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", state)
    Zoom(Sight(), Stretch(0, 99), "slider").take(asked)
    assert state.get("slider") == kept
