"""What pages offer besides drawing: notes on steps, the cache over steps, the way to a place, the verdict as a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from support.called import specscope
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.traces import EAGER, FAULTY, FUSED, load

from specscope.tracer.files.notes import NotedStep, notes_path, read_notes, write_note
from specscope.viewer.screens import diff as diff_page
from specscope.viewer.screens import inspector
from specscope.viewer.screens import step as step_page
from specscope.viewer.screens.inspector import Noted

TraceMaker = Callable[..., Path]


class Asker:
    """Asks a page's board for something, as a browser does: between two runs of the page, in its session."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[dict[str, Any]], None]] = []

    def ask(self, app: AppTest, request: str) -> AppTest:
        self.waiting.append(lambda heard: heard["on_request"](request))
        return checked(app.run())

    def note(self, app: AppTest, note: Noted) -> AppTest:
        self.waiting.append(lambda heard: heard["on_note"](note))
        return checked(app.run())


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Asker:
    asker = Asker()
    show = inspector.show_board

    def show_board(draw: Any, **others: Any) -> None:
        if asker.waiting:
            asker.waiting.pop()(others)
            st.rerun()
        show(draw, **others)

    for page in (step_page, diff_page):
        monkeypatch.setattr(page, "show_board", show_board)
    return asker


def test_a_note_is_kept_beside_the_trace_and_shown_where_its_step_is(
    make_trace: TraceMaker, open_app: Opener, browser: Asker
) -> None:
    trace = make_trace("a.jsonl")
    app = open_app(trace, page="step", turn="0", step="1")
    assert 'data-step="1"' in html_of(app)
    assert "noted" not in boards_of(app)[0]["strip"]
    app = browser.note(app, Noted(1, "why <b>zero</b>?\n"))
    assert {tuple(place): note.text for place, note in read_notes(trace, "run").items()} == {(0, 1): "why <b>zero</b>?"}
    [board] = boards_of(app)
    assert board["raw"]["note"] == "why <b>zero</b>?", "the browser gets exactly what was written"
    assert board["strip"].count('class="noted"') == 1
    app = browser.ask(app, "step:2")
    assert boards_of(app)[0]["raw"]["note"] == ""
    app = browser.note(app, Noted(3, "there is no such step"))
    assert len(notes_path(trace).read_bytes().splitlines()) == 1
    app = browser.note(app, Noted(1, ""))
    assert read_notes(trace, "run") == {}


def test_a_note_that_cannot_be_kept_says_why(make_trace: TraceMaker, open_app: Opener, browser: Asker) -> None:
    trace = make_trace("a.jsonl")
    notes_path(trace).mkdir()
    app = browser.note(open_app(trace, page="step"), Noted(0, "x"))
    assert "The note was not kept" in html_of(app)
    assert "could not be written to a.jsonl.notes" in html_of(app)
    assert "The note was not kept" not in html_of(checked(app.run()))


def test_notes_of_both_runs_stand_on_the_diff_page_and_in_both_reports(
    pair_of_traces: tuple[Path, Path], open_app: Opener, tmp_path: Path
) -> None:
    baseline, candidate = pair_of_traces
    write_note(baseline, NotedStep(0, 1), "sound <i>here</i>", run_id="run")
    write_note(candidate, NotedStep(0, 1), "wrong there", run_id="run")
    html = html_of(open_app(baseline, candidate, page="diff", turn="0", step="1"))
    assert "sound &lt;i&gt;here&lt;/i&gt;" in html
    assert "wrong there" in html
    for name, files in (("pair.html", [baseline, candidate]), ("run.html", [candidate])):
        assert specscope("report", *map(str, files), "-o", str(tmp_path / name)).code == 0
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert "wrong there" in page
        assert ("sound &lt;i&gt;here&lt;/i&gt;" in page) == (len(files) == 2)
    assert "Notes" not in html_of(open_app(FUSED, page="step"))


def test_the_cache_over_the_last_steps_is_drawn_once_it_is_asked_for(open_app: Opener, browser: Asker) -> None:
    app = open_app(FUSED, page="step", turn="2", step="12")
    assert "ss-history" not in html_of(app)
    app = browser.ask(app, "history:show")
    assert html_of(app).count('<g class="line"') == 13
    assert 'data-do="step:12"' in html_of(app).partition("ss-history")[2]
    scene = boards_of(app)[0]["scene"]
    app = browser.ask(app, "history:hide")
    assert "ss-history" not in html_of(app)
    assert boards_of(app)[0]["scene"] != scene


def test_phases_over_time_are_drawn_once_they_are_asked_for(open_app: Opener, browser: Asker) -> None:
    app = open_app(FUSED, page="step", turn="1", step="9")
    assert "ss-phases" not in html_of(app)
    app = browser.ask(app, "phases:show")
    num_steps = sum(line["kind"] == "step" and line["turn"] == 1 for line in load(FUSED))
    assert html_of(app).count('class="timed') == num_steps, "the whole turn is shorter than the window"
    assert "More steps" not in html_of(app)
    app = browser.ask(app, "phases:fewer")
    assert html_of(app).count('class="timed') == 5
    app = browser.ask(app, "step:3")
    assert html_of(app).count('class="timed') == 5, "it stays from step to step"
    assert '"timed now" data-do="step:3"' in html_of(app)
    for _ in range(3):
        app = browser.ask(app, "phases:fewer")
    assert html_of(app).count('class="timed') == 1
    app = browser.ask(app, "phases:hide")
    assert "ss-phases" not in html_of(app)
    assert "ss-phases" not in html_of(browser.ask(app, "phases:<b>"))


@pytest.mark.parametrize("page", ["step", "diff"])
def test_a_place_is_gone_to_by_its_numbers(open_app: Opener, browser: Asker, page: str) -> None:
    app = browser.ask(open_app(EAGER, FUSED, page=page, turn="0", step="0"), "place:2.4")
    assert (query_of(app)["turn"], query_of(app)["step"]) == ("2", "4")
    for nonsense in ("place:9.1", "place:2", "place:2.x", "turn:2.1"):
        app = browser.ask(app, nonsense)
        assert (query_of(app)["turn"], query_of(app)["step"]) == ("2", "4")
    last = query_of(browser.ask(app, "place:2.999999999"))
    assert last["turn"] == "2"
    assert int(last["step"]) < 100


def test_the_verdict_is_the_one_that_the_command_prints(open_app: Opener, browser: Asker) -> None:
    app = open_app(EAGER, FAULTY, page="diff")
    assert boards_of(app)[0]["file"] is None
    saved = boards_of(browser.ask(app, "save:verdict"))[0]["file"]
    assert saved["name"] == "eager-fused-F16.verdict.json"
    printed = json.loads(specscope("diff", EAGER, FAULTY, "--format", "json").out)
    named = {"baseline", "candidate", "next"}  # the page names the files as they were given
    mine = json.loads(saved["text"])
    assert {name: mine[name] for name in mine.keys() - named} == {
        name: printed[name] for name in printed.keys() - named
    }
    assert boards_of(checked(app.run()))[0]["file"] is None, "it is saved once"


@pytest.mark.parametrize(
    "value", ["", "null", "[]", '{"step": true, "text": "x"}', '{"step": -1, "text": "x"}', '{"step": 1}', "x" * 50_000]
)
def test_what_a_browser_sends_as_a_note_may_be_anything(value: str) -> None:
    assert inspector.parse_note(value) is None
    assert inspector.parse_note('{"step": 1, "text": "x"}') == Noted(1, "x")
