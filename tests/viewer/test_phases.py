"""Phases over time: where each lies, against the file for Perfetto, and what is said of what was not recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pairs import SVG
from support.traces import FUSED, load, store

from specscope.schemas import TimingSection
from specscope.tracer.errors import TraceError
from specscope.tracer.export.perfetto import perfetto_trace
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.step.phases import PhaseWindow, phases_card
from specscope.viewer.drawing.svg.phases import (
    LONGEST_NS,
    PREFILL,
    LaidPhases,
    TimedStep,
    TimedSteps,
    draw_phases,
    lay_out,
    phase_words,
)
from specscope.viewer.report.choice import Wanted
from specscope.viewer.report.run_report import run_report
from specscope.viewer.runs.timings import steps_around, timed_steps

MS = 1_000_000


def timing(begun: int | None = None, **changes: Any) -> TimingSection:
    """Ten milliseconds of a step, of which the forward takes seven."""
    lengths = {"draft": 2, "tensorize": 0, "check": 0, "verify": 7, "accept": 0, "commit": 1}
    fields: dict[str, Any] = {f"{name}_ns": length * MS for name, length in lengths.items()}
    return TimingSection(**(fields | {"begun_ns": begun, "synchronised": True} | changes))


def laid_of(*timings: TimingSection | None, prefill_ns: int | None = None, num_rows: int = 1) -> LaidPhases:
    steps = [TimedStep(at, entry) for at, entry in enumerate(timings)]
    laid = lay_out(TimedSteps(steps=steps, prefill_ns=prefill_ns, num_rows=num_rows))
    assert laid is not None
    return laid


def words_of(*timings: TimingSection | None, **others: Any) -> str:
    return " ".join(phase_words(laid_of(*timings, **others)))


@pytest.mark.parametrize("is_begun", [False, True], ids=["durations alone", "begun_ns"])
def test_phases_lie_where_the_file_for_perfetto_has_them(tmp_path: Path, is_begun: bool) -> None:
    lines = load(FUSED)
    for line in lines:
        if line["kind"] == "step" and is_begun:
            line["timing"]["begun_ns"] = 90 * MS * (1 + line["step"])
    path = store(lines, tmp_path / "run.jsonl")
    with TraceReader(path) as reader:
        turn = reader.turns[0]
        laid = lay_out(timed_steps(reader, turn, range(len(turn.steps))))
        events = [e for e in perfetto_trace(reader)["traceEvents"] if e["ph"] == "X" and e["tid"] == 1]
    assert laid is not None
    assert laid.is_placed == is_begun
    expected = [(e["name"], e["ts"], e["dur"]) for e in events if not e["name"].startswith("step ")]
    assert [span.name for span in laid.spans] == [name for name, *_ in expected]
    for span, (_, start, length) in zip(laid.spans, expected, strict=True):
        assert (span.start / 1000, span.length / 1000) == pytest.approx((start, length))


def test_what_was_not_recorded_is_said() -> None:
    alone = words_of(timing(), timing())
    assert "When a step began was not recorded" in alone
    assert "time between them is not shown" in alone
    placed = words_of(timing(0), timing(15 * MS))
    assert "Steps stand where they began" in placed
    assert "5 ms of 25 ms lie in no recorded phase." in placed
    assert "not recorded:" not in placed
    assert "1 of 2 steps do not record when they began" in words_of(timing(0), timing())
    assert not laid_of(timing(50 * MS), timing()).is_placed, "one axis cannot hold both"
    assert "1 step without recorded timings: left out." in words_of(timing(), None)
    assert "left out" not in alone
    assert "not synchronised" in words_of(timing(), timing(synchronised=False))
    assert "not synchronised" not in alone
    assert "4 rows were decoded side by side" in words_of(timing(), num_rows=4)
    assert "side by side" not in alone
    assert "1 step began before the one ahead was done." in words_of(timing(0), timing(5 * MS))
    assert "began before" not in placed
    assert lay_out(TimedSteps(steps=[TimedStep(0, None)])) is None


def test_steps_are_columns_and_phases_lanes() -> None:
    laid = laid_of(timing(20 * MS), timing(40 * MS), prefill_ns=20 * MS)
    root = ElementTree.fromstring(draw_phases(laid, current=1, is_page=True))
    groups = [group for group in root.iter(f"{SVG}g") if group.get("data-do")]
    assert [(g.get("data-do"), "now" in g.get("class", "").split()) for g in groups] == [
        ("step:0", False),
        ("step:1", True),
    ]
    assert groups[0].findtext(f"{SVG}title", "").startswith("step 0: 10 ms; draft 2 ms, tensorize 0 ms")
    names = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"]
    assert names == [PREFILL, "draft", "verify", "commit"], "what took no time has no lane"
    sums = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "sum"]
    assert sums == ["20 ms, 50%", "4 ms, 10%", "14 ms, 35%", "2 ms, 5%"]
    first, second = (
        next(rect for rect in group.iter(f"{SVG}rect") if rect.get("class") == "work verify") for group in groups
    )
    assert float(second.get("x", "")) - float(first.get("x", "")) == pytest.approx(668 * 20 / 50, abs=0.05)
    assert float(first.get("width", "")) == pytest.approx(668 * 7 / 50, abs=0.05)
    assert "data-do" not in draw_phases(laid), "a report cannot be asked"


def test_columns_are_links_that_keys_reach() -> None:
    laid = laid_of(timing(), timing())
    root = ElementTree.fromstring(draw_phases(laid, is_page=True))
    assert root.get("role") == "group", "what is within an image cannot be reached"
    groups = [group for group in root.iter(f"{SVG}g") if group.get("data-do")]
    assert [(group.get("role"), group.get("tabindex")) for group in groups] == [("link", "0")] * 2
    assert [group.get("aria-label") for group in groups] == [group.findtext(f"{SVG}title") for group in groups]
    still = draw_phases(laid)
    assert ElementTree.fromstring(still).get("role") == "img"
    assert "tabindex" not in still


@given(st.lists(st.integers(-(1 << 80), 1 << 80), min_size=1, max_size=6), st.booleans())
def test_hostile_times_are_drawn_within_bounds(times: list[int], is_begun: bool) -> None:
    entries = [timing(time if is_begun else None, verify_ns=time) for time in times]
    laid = laid_of(*entries, prefill_ns=times[0])
    assert all(0 <= span.length <= LONGEST_NS for span in laid.spans)
    root = ElementTree.fromstring(draw_phases(laid))
    for rect in root.iter(f"{SVG}rect"):
        right = float(rect.get("x", "")) + float(rect.get("width", ""))
        assert 0 <= float(rect.get("x", "")) <= right <= 861
    assert len(list(root.iter(f"{SVG}line"))) <= 14


def test_a_window_has_the_step_in_its_middle_where_it_can() -> None:
    assert steps_around(10, 100, 5) == range(8, 13)
    assert steps_around(0, 100, 5) == range(5)
    assert steps_around(99, 100, 5) == range(95, 100)
    assert steps_around(2, 3, 5) == range(3)


def test_the_card_says_since_when_and_offers_what_there_is() -> None:
    timed = TimedSteps(steps=[TimedStep(3, timing()), TimedStep(4, timing())])
    card = phases_card(PhaseWindow(timed, has_more=True), current=3, buttons=True)
    assert "steps 3 to 4, since the first of them began" in card
    assert "More steps" in card
    assert "Fewer steps" not in card
    begun = TimedSteps(steps=[TimedStep(3, timing(5))])
    assert "step 3, since the turn began" in phases_card(PhaseWindow(begun), current=3, buttons=False)
    without = TimedSteps(steps=[TimedStep(3, None)])
    assert "These steps record no timings." in phases_card(PhaseWindow(without), current=3, buttons=True)


def with_broken_step(folder: Path, turn: int, step: int) -> Path:
    """A trace in which one step's record is no step; its page cannot be shown."""
    lines = load(FUSED)
    broken = next(s for s in lines if s["kind"] == "step" and (s["turn"], s["step"]) == (turn, step))
    broken["timing"] = {"draft_ns": "soon"}
    return store(lines, folder / "broken.jsonl")


def test_a_step_that_cannot_be_read_is_counted_and_the_others_are_drawn(tmp_path: Path) -> None:
    with TraceReader(with_broken_step(tmp_path, 1, 2)) as reader:
        turn = reader.turns[1]
        with pytest.raises(TraceError):
            reader.step(turn, 2)
        timed = timed_steps(reader, turn, range(5))
    laid = lay_out(timed)
    assert laid is not None
    assert [step.step for step in laid.steps] == [0, 1, 3, 4]
    assert (laid.num_unreadable, laid.num_untimed) == (1, 0)
    assert "1 step cannot be read: left out." in phase_words(laid)
    assert "cannot be read" not in words_of(timing(), None)


def test_a_card_without_any_times_says_why() -> None:
    broken, bare = TimedStep(2, None, is_unreadable=True), TimedStep(3, None)
    card = phases_card(PhaseWindow(TimedSteps(steps=[broken])), current=2, buttons=True)
    assert "1 step cannot be read: left out." in card
    assert "record no timings" not in card
    both = phases_card(PhaseWindow(TimedSteps(steps=[broken, bare])), current=3, buttons=True)
    assert "1 step cannot be read: left out. The others record no timings." in both


def test_the_report_of_a_run_has_them_where_times_are_recorded(tmp_path: Path) -> None:
    page = run_report(FUSED, Wanted(turn=1, step=5), TokenTexts(None)).page
    assert page.count('class="ss-phases"') == 1
    assert "When a step began was not recorded" in page
    lines = [{name: value for name, value in line.items() if name != "timing"} for line in load(FUSED)]
    bare = store(lines, tmp_path / "bare.jsonl")
    assert 'class="ss-phases"' not in run_report(bare, Wanted(turn=1, step=5), TokenTexts(None)).page
