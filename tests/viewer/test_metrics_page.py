"""The Metrics page: one run, two beside each other, and runs without numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest
from support.loops import looping
from support.pages import Opener, checked, html_of, query_of
from support.traces import EAGER, FAULTY, FUSED, SAMPLES, load, store

TraceMaker = Callable[..., Path]


def figures_of(app: AppTest) -> list[dict[str, Any]]:
    """Every figure on the page."""
    return [json.loads(element.proto.spec) for element in app.get("plotly_chart")]


def test_one_run_has_its_numbers_and_figures(open_app: Opener) -> None:
    app = open_app(FUSED, page="metrics")
    html = html_of(app)
    for words in ("2.297", "accepted length + 1", "tokens per second, prefill included", "From all steps."):
        assert words in html
    assert "The device was synchronised after each phase" in html
    figures = figures_of(app)
    assert len(figures) == 12
    assert sum(figure["layout"]["showlegend"] for figure in figures) == 1, "depth and top-k in one figure"
    titles = {figure["layout"]["yaxis"]["title"].get("text") for figure in figures}
    assert {"accepted length", "tokens per step", "tokens per second"} <= titles


def test_a_pair_is_laid_over_each_other_or_shown_alone(open_app: Opener) -> None:
    app = open_app(EAGER, FAULTY, page="metrics")
    assert "baseline eager.jsonl" in html_of(app)
    assert "0.583" in html_of(app), "the ratio of accepted lengths"
    assert {trace["name"] for trace in figures_of(app)[0]["data"]} == {"eager.jsonl", "fused-F16.jsonl"}
    checked(app.toggle(key="metrics-both").set_value(False).run())
    assert {trace["name"] for trace in figures_of(app)[0]["data"]} == {query_of(app)["run"]}


def test_a_run_outside_the_pair_stands_alone(open_app: Opener) -> None:
    app = open_app(EAGER, FAULTY, FUSED, page="metrics", run="eager.jsonl")
    assert len(figures_of(app)[0]["data"]) == 2
    checked(app.selectbox(key="run").set_value("fused.jsonl").run())
    assert query_of(app)["run"] == "fused.jsonl"
    assert [trace["name"] for trace in figures_of(app)[0]["data"]] == ["fused.jsonl"]
    assert not app.toggle


def test_a_trace_without_steps_says_so(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace(turns=[[]]), page="metrics")
    assert "There is nothing to measure yet" in html_of(app)
    assert not figures_of(app)


def test_what_was_not_recorded_has_no_figure(make_trace: TraceMaker, open_app: Opener, tmp_path: Path) -> None:
    lines = load(make_trace())
    bare = [{name: value for name, value in line.items() if name != "timing"} for line in lines]
    app = open_app(store(bare, tmp_path / "bare.jsonl"), page="metrics")
    assert "This run records no timings." in html_of(app)
    assert len(figures_of(app)) == 7, "neither times, nor turns beside each other, nor what candidates would tell"


def test_a_file_that_is_no_trace_is_an_error_in_words(open_app: Opener) -> None:
    app = open_app(SAMPLES, page="metrics", run="prompts.jsonl")
    assert "got no manifest on the first line" in html_of(app)
    checked(app.selectbox(key="run").set_value("fused.jsonl").run())
    assert figures_of(app)


def test_hostile_prompts_are_no_markup(hostile_folder: Path, open_app: Opener) -> None:
    app = open_app(hostile_folder, page="metrics", run="sound.jsonl")
    shown = json.dumps(figures_of(app)) + html_of(app)
    assert "&lt;b onclick" in shown
    assert "<b onclick" not in shown
    assert "<script" not in shown


def test_output_that_repeats_itself_is_warned_of(open_app: Opener, tmp_path: Path) -> None:
    path = store(looping(load(FUSED)), tmp_path / "loop.jsonl")
    assert "1 turn ends in a loop" in html_of(open_app(path, page="metrics"))
    assert "loop" not in html_of(open_app(FUSED, page="metrics"))


def test_a_run_that_drafts_nothing_shows_times_and_speed_alone(open_app: Opener, tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["tree_policy"]["kind"] = "none"
    app = open_app(store(lines, tmp_path / "plain.jsonl"), page="metrics")
    assert "Nothing was drafted" in html_of(app)
    assert len(figures_of(app)) == 2


def test_a_single_turn_is_no_chart(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace(), page="metrics")
    assert html_of(app).count("There is one turn: its number stands above.") == 2
    assert not [title for title in map(x_title_of, figures_of(app)) if title == "turn"]


def x_title_of(figure: dict[str, Any]) -> str | None:
    """What the figure's horizontal axis is called."""
    title: str | None = figure["layout"]["xaxis"]["title"].get("text")
    return title
