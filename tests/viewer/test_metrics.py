"""Metrics against a slow count over all records, and the figures that are drawn of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.row_mutants import requests_waited
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FAULTY, FUSED, load, store

from specscope.schemas import TimingSection
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.style.palette import DARK, LIGHT
from specscope.viewer.metrics import charts, tuning_charts
from specscope.viewer.metrics.numbers import (
    MOST_BINS,
    MOST_DEPTHS,
    MOST_POINTS,
    Course,
    RunMetrics,
    TurnSpeed,
    by_depth,
    clipped,
    committed_lengths,
    in_bins,
    over_time,
    read_metrics,
    spread,
    stage_times,
)
from specscope.viewer.metrics.words import fact_entries, phase_lines, speed_remarks, table_lines, times_remarks

TraceMaker = Callable[..., Path]
FIGURES = (
    charts.depth_of_reached,
    charts.depth_of_all,
    charts.acceptance_by_position,
    charts.tokens_over_time,
    charts.stage_times,
    charts.speed_by_turn,
    tuning_charts.accepted_lengths,
    tuning_charts.right_child,
    tuning_charts.calibration,
    tuning_charts.other_budgets,
    tuning_charts.by_prompt,
)
lengths = st.lists(st.integers(0, 9), min_size=1, max_size=60)


def metrics_of(path: Path) -> RunMetrics:
    """The metrics of a file."""
    with TraceReader(path) as reader:
        return read_metrics(reader, path.name)


def texts_of(figure: Any) -> str:
    """All that a figure holds, as the browser reads it: plotly's own JSON hides every angle bracket."""
    return json.dumps(json.loads(figure.to_json()), ensure_ascii=False)


@pytest.mark.parametrize("path", [EAGER, FUSED, FAULTY], ids=lambda path: path.stem)
def test_acceptance_agrees_with_the_records(path: Path) -> None:
    found, lines = metrics_of(path), load(path)
    accepted = [line["accept"]["accepted_length"] for line in lines if line["kind"] == "step"]
    assert found.accepted_length == pytest.approx(fmean(accepted))
    assert found.depths is not None
    ends = [line["accepted_by_depth"] for line in lines if line["kind"] == "turn_end"]
    for depth, count in enumerate(found.depths.accepted.tolist()):
        assert count == sum(end[depth] for end in ends if depth < len(end)), "as the turns' own ends count it"
        reached = sum(length >= depth for length in accepted)
        assert found.depths.reached[depth] == reached
        assert found.depths.of_all[depth] == pytest.approx(count / len(accepted))
        if reached:
            assert found.depths.of_reached[depth] == pytest.approx(count / reached)


@pytest.mark.parametrize("path", [FUSED, FAULTY], ids=lambda path: path.stem)
def test_positions_agree_with_the_commits(path: Path) -> None:
    found = metrics_of(path).positions
    places = [(s["commit"]["committed_before"], s["accept"]["accepted_length"]) for s in load(path) if "commit" in s]
    assert found is not None
    assert found.sizes.sum() == len(places)
    for first, last, mean, size in zip(found.first, found.last, found.mean, found.sizes, strict=True):
        inside = [length for place, length in places if first <= place <= last]
        assert len(inside) == size
        assert mean == pytest.approx(fmean(inside))


def test_the_course_of_a_short_run_is_its_steps() -> None:
    found = metrics_of(FUSED).course
    tokens = [s["accept"]["accepted_length"] + 1 for s in load(FUSED) if s["kind"] == "step"]
    assert found is not None
    assert found.bins.mean.tolist() == tokens
    assert found.moving.tolist() == pytest.approx([fmean(tokens[max(0, n - 24) : n + 1]) for n in range(len(tokens))])


def test_times_and_speed_agree_with_the_records() -> None:
    found, lines = metrics_of(FUSED), load(FUSED)
    timings = [line["timing"] for line in lines if line["kind"] == "step"]
    assert found.times is not None
    assert found.times.synchronised == "all"
    assert (found.times.num_timed, found.times.num_read, found.times.num_steps) == (37, 37, 37)
    total = sum(timing.get(f"{name}_ns", 0) for timing in timings for name in TIMED_PHASES)
    for phase in found.times.phases:
        values = [timing[f"{phase.name}_ns"] for timing in timings]
        assert phase.median_ns == pytest.approx(median(values))
        assert sum(value <= phase.p90_ns for value in values) / len(values) == pytest.approx(0.9, abs=0.03)
        assert phase.share == pytest.approx(sum(values) / total)
    ends = [line for line in lines if line["kind"] == "turn_end"]
    num_tokens, seconds = sum(len(end["output_ids"]) for end in ends), sum(end["duration_ns"] for end in ends) / 1e9
    assert found.speed.overall == pytest.approx(num_tokens / seconds)
    assert [turn.num_tokens for turn in found.speed.turns] == [len(end["output_ids"]) for end in ends]


def test_rows_side_by_side_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = store(toy_lines(Toy("sampling", batch_size=2)), tmp_path / "batch.jsonl")
    found = metrics_of(path)
    tokens = [s["accept"]["accepted_length"] + 1 for s in load(path) if s["kind"] == "step"]
    assert found.course is not None
    assert found.course.bins.mean.tolist() == tokens
    assert found.speed.overall is None, "the turns' times overlap"
    assert "overlap" in " ".join(speed_remarks(found))
    if found.times is not None:
        assert "all rows together" in " ".join(times_remarks(found))


def test_a_replay_has_no_positions(make_trace: TraceMaker, tmp_path: Path) -> None:
    lines = load(make_trace())
    lines[0]["replay_of"] = "another"
    assert metrics_of(make_trace()).positions is not None
    assert metrics_of(store(lines, tmp_path / "replay.jsonl")).positions is None


def test_what_was_not_recorded_is_no_number(make_trace: TraceMaker, tmp_path: Path) -> None:
    lines = load(make_trace(run_end=False))
    lines[0]["capabilities"] = ["tree"]
    bare = [{k: v for k, v in line.items() if k not in ("accept", "timing")} for line in lines]
    found = metrics_of(store([line for line in bare if line["kind"] != "turn_end"], tmp_path / "bare.jsonl"))
    assert (found.accepted_length, found.depths, found.positions, found.course, found.times) == (None,) * 5
    assert (found.speed.turns, found.speed.overall) == ([], None)
    assert [fact.value for fact in fact_entries(found)][2:] == ["not recorded"] * 3
    for figure in FIGURES:
        assert not figure([found], LIGHT).data


def test_how_long_requests_waited_stands_among_the_facts(tmp_path: Path) -> None:
    run = metrics_of(store(requests_waited(load(FUSED)), tmp_path / "waited.jsonl"))
    facts = {fact.name: (fact.value, fact.note) for fact in fact_entries(run)}
    assert facts["requests"] == ("2", "took a row; 1 of them cancelled")
    assert facts["waited for a row"] == ("1.50", "steps on average, p95 3; 750 ms, p95 1,500")
    assert run.tuning.served is not None
    assert facts["tokens of all rows"][0] == f"{run.tuning.served.tokens_per_step:.2f}"
    assert "requests" not in {fact.name for fact in fact_entries(metrics_of(FUSED))}


@pytest.mark.parametrize("turns", [[], [[]]], ids=["no turns", "no steps"])
def test_empty_traces_have_metrics(make_trace: TraceMaker, turns: list[list[int]]) -> None:
    found = metrics_of(make_trace(turns=turns))
    assert (found.num_turns, found.num_steps, found.accepted_length) == (len(turns), 0, None)


def test_hostile_numbers_are_drawn_all_the_same(make_trace: TraceMaker, tmp_path: Path) -> None:
    lines = load(make_trace(prompt_ids=["<b>x</b>"]))
    step = next(line for line in lines if line["kind"] == "step")
    step["accept"]["accepted_length"] = 10**400
    step["timing"]["draft_ns"] = 10**400
    lines[0]["tree_policy"]["depth"] = 10**9
    for line in lines:
        line.update({"turn": 10**400} if "turn" in line else {})
        line.update({"duration_ns": 10**400} if "duration_ns" in line else {})
    found = metrics_of(store(lines, tmp_path / "huge.jsonl"))
    assert found.depths is not None
    assert len(found.depths.reached) == MOST_DEPTHS
    for figure in FIGURES:
        assert "<b>" not in texts_of(figure([found], LIGHT))


@given(lengths, st.integers(0, 9))
def test_depths_count_as_a_slow_count_does(values: list[int], policy_depth: int) -> None:
    found = by_depth(clipped(values), policy_depth)
    assert len(found.reached) == max(policy_depth, *values)
    for depth in range(len(found.reached)):
        assert found.reached[depth] == sum(value >= depth for value in values)
        assert found.accepted[depth] == sum(value > depth for value in values)
    assert found.accepted.sum() == sum(values)


@given(lengths, st.integers(1, 10), st.integers(0, 10**6), st.integers(1, 10**9))
def test_bins_hold_every_step_once(values: list[int], most: int, start: int, stride: int) -> None:
    places = np.array([start + stride * at for at in range(len(values))])
    found = in_bins(places, clipped(values), most)
    assert len(found.first) <= most
    assert found.sizes.sum() == len(values)
    assert found.sizes.min() > 0
    assert (found.mean * found.sizes).sum() == pytest.approx(sum(values))
    for first, last, size in zip(found.first, found.last, found.sizes, strict=True):
        assert ((places >= first) & (places <= last)).sum() == size


@given(st.integers(0, 5000), st.integers(2, 50))
def test_spread_takes_the_first_the_last_and_between(size: int, most: int) -> None:
    found = spread(size, most)
    assert len(found) == min(size, most)
    assert found == sorted(set(found))
    if size:
        assert (found[0], found[-1]) == (0, size - 1)
        assert max(np.diff(found), default=0) <= size / max(1, len(found) - 1) + 1


@given(lengths, st.integers(0, 100))
def test_committed_lengths_follow_the_commit_equation(values: list[int], num_prompt: int) -> None:
    committed = num_prompt
    for before, length in zip(committed_lengths(num_prompt, clipped(values)), values, strict=True):
        assert before == committed
        committed += 1 + length


def test_a_part_of_the_steps_is_named_as_such() -> None:
    timing = dict.fromkeys((f"{name}_ns" for name in TIMED_PHASES if name not in ("branch", "deliver")), 1_000_000)
    found = stage_times([TimingSection(**timing, synchronised=at > 0) for at in range(4)], num_read=5, num_steps=100)
    assert found.synchronised == "some"
    assert found.step_ns == 6_000_000
    assert phase_lines(found)[0] == ["draft", "1.000", "1.000", "16.7%"]
    said = " ".join(times_remarks(replace(metrics_of(FUSED), times=found)))
    assert "From 5 of 100 steps, spread evenly over the run." in said
    assert "1 of them record no timings" in said
    assert "only sometimes synchronised" in said


def test_the_copy_of_a_branch_is_a_phase_where_some_step_records_it() -> None:
    timing = dict.fromkeys((f"{name}_ns" for name in TIMED_PHASES), 1_000_000)
    copied = TimingSection(**timing, synchronised=True)
    plain = copied.model_copy(update={"branch_ns": None})
    found = stage_times([copied, copied, plain], num_read=3, num_steps=3)
    assert [phase.name for phase in found.phases] == list(TIMED_PHASES)
    assert found.step_ns == 8_000_000
    assert found.phases[0].share == pytest.approx(2 / 23)
    fused = metrics_of(FUSED)
    both = [replace(fused, times=stage_times([plain], num_read=1, num_steps=1)), replace(fused, times=found)]
    lines = {line[0]: line[1:] for line in table_lines(both)}
    assert lines["branch, median ms"] == ["not recorded", "1.000", "–", ""]
    assert "branch, median ms" not in {line[0] for line in table_lines(both[:1])}


def test_two_runs_stand_beside_each_other_with_their_ratio() -> None:
    a, b = metrics_of(EAGER), metrics_of(FAULTY)
    lines = {line[0]: line[1:] for line in table_lines([a, b])}
    assert lines["steps"] == ["37", "53", "1.432", ""]
    assert lines["accepted length, mean"][:3] == ["2.297", "1.340", "0.583"]
    assert re.fullmatch(r"0\.\d+ to 0\.\d+", lines["accepted length, mean"][3]), "a change beyond doubt"
    assert lines["tokens per step, mean"] == ["3.297", "2.340", "0.710", ""]
    assert all(len(line) == 2 for line in table_lines([a]))


def long_run(name: str, num_steps: int, num_turns: int) -> RunMetrics:
    """Made-up numbers of a run of that length, the turns as many as are ever read."""
    numbers = np.random.default_rng(0).integers(0, 9, num_steps)
    turns = [TurnSpeed(at, f"prompt-{at}" * 20, 100, 1.5) for at in range(num_turns)]
    known = metrics_of(FUSED)
    positions = in_bins(np.arange(num_steps), numbers, MOST_BINS)
    depths, course = by_depth(numbers, 8), over_time(numbers)
    speed = replace(known.speed, turns=turns)
    return replace(known, name=name, depths=depths, positions=positions, course=course, speed=speed)


def test_figures_of_long_runs_are_small() -> None:
    runs = [long_run("a", 55_000, 2_000), long_run("b", 54_321, 2_000)]
    assert isinstance(runs[0].course, Course)
    assert len(runs[0].course.bins.mean) <= MOST_POINTS
    assert runs[0].course.moving[-1] == pytest.approx(1 + np.random.default_rng(0).integers(0, 9, 55_000)[-25:].mean())
    for figure in FIGURES:
        assert len(figure(runs, LIGHT).to_json()) < 1_000_000


@pytest.mark.parametrize("figure", FIGURES)
def test_the_second_run_is_told_by_more_than_colour(figure: Callable[..., Any]) -> None:
    drawn = json.loads(figure([metrics_of(EAGER), metrics_of(FUSED)], DARK).to_json())
    first, second = drawn["data"][0], drawn["data"][-1]
    if first["type"] == "bar":
        assert first["marker"]["pattern"]["shape"] != second["marker"]["pattern"]["shape"]
    else:
        assert first["line"]["dash"] != second["line"]["dash"]
        assert first["marker"]["symbol"] != second["marker"]["symbol"]
    assert drawn["layout"]["paper_bgcolor"] == drawn["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert drawn["layout"]["font"]["color"] == DARK.ink


def test_names_are_no_markup_in_a_figure() -> None:
    hostile = replace(metrics_of(FUSED), name="<a href='x'>y</a>\u202e")
    speed = replace(hostile.speed, turns=[TurnSpeed(0, "<b>bold</b>", 10, 1.0)])
    for figure in FIGURES:
        text = texts_of(figure([replace(hostile, speed=speed)] * 2, LIGHT))
        assert "&lt;a href=" in text
        for markup in ("<a", "<b>", "\u202e"):
            assert markup not in text
