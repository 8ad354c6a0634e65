"""The controls lead to turns that are there, and what is said of failures is said as far as it is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.pages import Opener, checked, html_of, query_of
from support.traces import load, store

from specscope.schemas import Failure
from specscope.viewer.drawing.tables.health import failure_note
from specscope.viewer.screens import controls

TraceMaker = Callable[..., Path]


def with_turns(make_trace: TraceMaker, path: Path, numbers: dict[int, int]) -> Path:
    """A trace of as many turns, each with another number."""
    lines = load(make_trace(turns=[[1]] * len(numbers)))
    for line in lines:
        if "turn" in line:
            line["turn"] = numbers[line["turn"]]
    return store(lines, path)


@pytest.mark.parametrize("page", ["step", "diff"])
def test_a_number_between_turns_leads_to_the_nearest(
    make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: str
) -> None:
    monkeypatch.setattr(controls, "MOST_TURNS_LISTED", 3)
    path = with_turns(make_trace, tmp_path / "gaps.jsonl", {0: 0, 1: 10, 2: 20, 3: 30})
    places = [path] if page == "step" else [path, make_trace(turns=[[1]] * 4, mode="eager")]
    app = open_app(*places, page=page, turn="10", step="0")
    for typed, turn in ((21, "20"), (28, "30"), (5, "0"), (30, "30")):
        checked(app.number_input(key="turn").set_value(typed).run())
        assert query_of(app)["turn"] == turn


def test_numbers_that_no_browser_can_hold_are_no_traceback(
    make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(controls, "MOST_TURNS_LISTED", 2)
    huge = 1 << 60
    app = open_app(with_turns(make_trace, tmp_path / "huge.jsonl", {0: 0, 1: 5, 2: huge}), page="step")
    checked(app.number_input(key="turn").set_value(controls.LARGEST_INPUT).run())
    assert query_of(app)["turn"] == str(huge)


def test_a_failed_prefill_names_no_step(make_trace: TraceMaker, open_app: Opener, tmp_path: Path) -> None:
    failure = {"seq": 9, "kind": "failure", "turn": 0, "phase": "prefill", "error": "E" * 5000, "message": "m"}
    path = store([*load(make_trace())[:-1], {**failure, "inputs": {}}], tmp_path / "failed.jsonl")
    for page in ("step", "health"):
        html = html_of(open_app(path, page=page))
        assert "turn 0, phase prefill" in html
        assert "None" not in html
        assert "E" * 200 not in html


def test_a_failure_outside_of_turns_names_its_phase_alone() -> None:
    shown = failure_note(Failure(seq=1, phase="record", error="E", message="m", inputs={}))
    assert "<div>phase record</div>" in shown
