"""The Runs page: what is listed, and what picking one or two of it does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.traces import EAGER, FUSED, SAMPLES

from specscope.schemas import Step
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport
from specscope.viewer.runs import checks
from specscope.viewer.runs.catalogue import Run
from specscope.viewer.runs.checks import Checks
from specscope.viewer.runs.differing import ABSENT, DifferingField, differing_card, differing_fields
from specscope.viewer.runs.order import KEYS, Order, in_order
from specscope.viewer.runs.summary import RunSummary, glance, summarise
from specscope.viewer.runs.table import RunList, run_board
from specscope.viewer.screens import health as health_page
from specscope.viewer.screens import inspector
from specscope.viewer.screens import runs as runs_page
from specscope.viewer.screens.runs import Asked, answer
from specscope.viewer.screens.view import View

TraceMaker = Callable[..., Path]
Click = Callable[[AppTest, str], AppTest]


@pytest.fixture
def click(monkeypatch: pytest.MonkeyPatch) -> Click:
    """Asks the page's board for something, as a click there does."""
    heard: dict[str, Callable[[str], None]] = {}
    show = inspector.show_one_board

    def show_board(board: Any, *, on_request: Callable[[str], None], **others: Any) -> None:
        heard["request"] = on_request
        show(board, on_request=on_request, **others)

    monkeypatch.setattr(runs_page, "show_one_board", show_board)

    def ask(app: AppTest, request: str) -> AppTest:
        heard["request"](request)
        return checked(app.run())

    return ask


def listed(app: AppTest) -> list[str]:
    """The names in the table, from above."""
    board = ElementTree.fromstring(boards_of(app)[0]["html"])
    return [element.text or "" for element in board.iter() if element.get("class") == "ss-name-of-run"]


def summaries(*paths: Path) -> list[RunSummary]:
    """Of files that are traces."""
    found = [summarise(Run(path.name, path)) for path in paths]
    assert all(isinstance(one, RunSummary) for one in found)
    return [one for one in found if isinstance(one, RunSummary)]


def test_a_folder_lists_its_traces_and_names_what_is_none(open_app: Opener) -> None:
    app = open_app(SAMPLES)
    assert query_of(app) == {"page": "runs"}
    assert listed(app) == ["fused-F16.jsonl", "fused.jsonl", "eager.jsonl"], "the newest first"
    html = html_of(app)
    assert "Pick one run to step through it, or a baseline and a candidate to compare them." in html
    assert "Compare eager.jsonl with fused.jsonl" in html
    assert "1 file here is not a readable trace" in html
    assert "<dt>prompts.jsonl</dt><dd>line 1, field kind: got no manifest" in html
    for words in ("2.297", "3.297", "1.340", "dynamic, depth 5, top-k 4, budget 16", "fault F16 injected", "228 kB"):
        assert words in html


def test_picking_one_run_opens_its_steps(open_app: Opener, click: Click) -> None:
    app = click(open_app(SAMPLES), "run:1")
    assert query_of(app) == {"page": "step", "run": "fused.jsonl", "turn": "0", "step": "0"}


def test_picking_two_runs_opens_their_comparison(open_app: Opener, click: Click) -> None:
    app = click(open_app(SAMPLES), "baseline:2")
    assert query_of(app) == {"page": "runs", "baseline": "eager.jsonl"}
    assert "Baseline eager.jsonl: now pick the candidate to compare it with." in html_of(app)
    assert 'data-do="baseline:2" aria-pressed="true"' in html_of(app)
    app = click(app, "candidate:0")
    found = query_of(app)
    assert (found["page"], found["baseline"], found["candidate"]) == ("diff", "eager.jsonl", "fused-F16.jsonl")
    checked(app.button_group(key="page").set_value("runs").run())
    assert "Baseline eager.jsonl, candidate fused-F16.jsonl." in html_of(app)
    assert query_of(click(app, "pair:chosen"))["page"] == "diff"


def test_the_pair_that_belongs_together_is_one_click(open_app: Opener, click: Click) -> None:
    found = query_of(click(open_app(SAMPLES), "pair:suggested"))
    assert (found["page"], found["baseline"], found["candidate"]) == ("diff", "eager.jsonl", "fused.jsonl")


def test_a_choice_can_be_taken_back_and_changed() -> None:
    def asked(view: View, *requests: str) -> tuple[str, str | None, str | None]:
        for request in requests:
            answer(view, shown, Asked(), request)
        return view.page, view.baseline, view.candidate

    shown = RunList(runs=summaries(EAGER, FUSED), folders=[("", [0, 1])])
    assert asked(View(), "baseline:0") == ("runs", "eager.jsonl", None)
    assert asked(View(), "baseline:0", "baseline:0") == ("runs", None, None), "taken back"
    moved = asked(View(), "baseline:0", "candidate:0")
    assert moved == ("runs", None, "eager.jsonl"), "no run is its own baseline"
    assert asked(View(), "candidate:0", "baseline:1") == ("diff", "fused.jsonl", "eager.jsonl")
    chosen = View(baseline="fused.jsonl", candidate="eager.jsonl")
    assert asked(chosen, "baseline:1") == ("runs", None, "eager.jsonl")
    other = View(baseline="other.jsonl", candidate="eager.jsonl")
    assert asked(other, "baseline:1") == ("runs", "fused.jsonl", "eager.jsonl"), "the candidate may follow"


ONE = summaries(EAGER)


@given(st.from_regex(r"(run|baseline|candidate|pair|x)(:[\w.-]{0,20})?", fullmatch=True))
def test_a_browser_may_ask_for_anything(request: str) -> None:
    view = View()
    answer(view, RunList(runs=ONE, folders=[("", [0])]), Asked(), request)
    what, _, where = request.partition(":")
    is_listed = where.isascii() and where.isdecimal() and int(where) == 0
    assert (view != View()) == (is_listed and what in ("run", "baseline", "candidate"))


def test_an_empty_folder_says_how_to_record(tmp_path: Path, open_app: Opener) -> None:
    html = html_of(open_app(tmp_path))
    assert "There are no runs here yet" in html
    assert "--trace runs/eager.jsonl" in html
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.jsonl").write_text("{}\n")
    html = html_of(open_app(other))
    assert "There are no runs here yet" in html
    assert "notes.jsonl" in html


def test_a_file_that_vanished_is_said_to_have(make_trace: TraceMaker, open_app: Opener) -> None:
    there, gone = make_trace("there.jsonl"), make_trace("gone.jsonl")
    gone.unlink()
    app = open_app(there, gone, page="runs")
    assert listed(app) == ["there.jsonl"]
    assert "no such file" in html_of(app)


def test_many_runs_are_filtered_and_ordered(
    make_trace: TraceMaker, open_app: Opener, click: Click, tmp_path: Path
) -> None:
    for at in range(9):
        make_trace(f"run-{at}.jsonl", mode="eager" if at == 4 else "fused", turns=[[at % 4] * (1 + at)])
    app = open_app(tmp_path)
    assert len(listed(app)) == 9
    checked(app.text_input(key="runs-filter").set_value("EAGER complete").run())
    assert listed(app) == ["run-4.jsonl"]
    assert "1 of 9 runs are listed." in html_of(app)
    checked(app.text_input(key="runs-filter").set_value("nonsense").run())
    assert "No run fits the filter" in html_of(app)
    checked(app.text_input(key="runs-filter").set_value("").run())
    assert app.text_input(key="runs-filter").proto.live_debounce_ms, "it acts while somebody types"
    for request, first in (
        ("order:steps.down", ["run-8.jsonl", "run-7.jsonl"]),
        ("order:steps.up", ["run-0.jsonl", "run-1.jsonl"]),
        ("order:accepted.down", ["run-3.jsonl", "run-7.jsonl"]),
        ("order:mode.up", ["run-4.jsonl", "run-0.jsonl"]),
        ("order:name.up", ["run-0.jsonl", "run-1.jsonl"]),
        ("order:nonsense.up", ["run-0.jsonl", "run-1.jsonl"]),
        ("order:newest.down", ["run-0.jsonl", "run-1.jsonl"]),
    ):
        app = click(app, request)
        assert listed(app)[:2] == first, request
    board = ElementTree.fromstring(boards_of(app)[0]["html"])
    runs = next(part for part in board.iter() if part.get("class") == "ss-table ss-runs")
    heads = [head.get("aria-sort") for head in runs.iter("{http://www.w3.org/1999/xhtml}th")]
    assert heads == ["descending", *["none"] * 7, None]


def test_hidden_runs_can_be_shown_again_and_their_link_hides_them_too(
    make_trace: TraceMaker, open_app: Opener, click: Click, tmp_path: Path
) -> None:
    for name in "abc":
        make_trace(f"{name}.jsonl", mode="eager" if name == "a" else "fused")
    app = open_app(tmp_path)
    assert "Compare a.jsonl with" not in html_of(app), "two could be meant"
    app = click(app, "hide:2")
    assert listed(app) == ["a.jsonl", "b.jsonl"]
    html = html_of(app)
    assert "Compare a.jsonl with b.jsonl" in html
    assert "1 hidden run" in html
    assert "Show c.jsonl" in html
    link = query_of(app)
    app.query_params.pop("hidden")  # as Back does
    assert listed(app.run()) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert query_of(app) == {"page": "runs"}
    app = click(app, "hide:2")
    app = click(click(app, "hide:0"), "hide:0")
    assert listed(app) == []
    assert "All runs are hidden" in html_of(app)
    assert listed(click(app, "show:1")) == ["b.jsonl"]
    assert listed(click(app, "show:all")) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert query_of(app) == {"page": "runs"}
    assert listed(open_app(tmp_path, **link)) == ["a.jsonl", "b.jsonl"]
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"a.jsonl", "b.jsonl", "c.jsonl"}


def test_what_differs_between_the_listed_runs_is_told_by_field() -> None:
    runs = summaries(*(path for path in sorted(SAMPLES.glob("*.jsonl")) if path.stem != "prompts"))
    fields = {field.name: field for field in differing_fields([run.fields for run in runs])}
    assert fields["mode"].values == ("eager", "fused", "fused")
    assert fields["mode"].commonest == "fused"
    assert fields["fault"].values == (ABSENT, "F16", ABSENT)
    assert not {"run_id", "created", "seq", "teacher.source", "tree_policy.budget"} & fields.keys()
    assert DifferingField("x", ("1", "2")).commonest is None
    card = differing_card([run.run.name for run in runs], [run.fields for run in runs])
    assert "What differs between these 3 runs" in card
    assert '<span class="ss-none">fused</span>' in card
    assert "Nothing that their manifests say" in differing_card(["a", "b"], [runs[0].fields, runs[0].fields])
    assert differing_card(["a"], [runs[0].fields]) == ""


def test_a_row_of_what_differs_has_a_button_that_opens_its_run() -> None:
    card = differing_card(["a", "b"], [{"mode": "eager"}, {"mode": "fused"}])
    buttons = list(ElementTree.fromstring(f"<div>{card}</div>").iter("button"))
    asked = [(button.text, button.get("data-do"), button.get("aria-label")) for button in buttons]
    assert asked == [("a", "run:0", "Open a"), ("b", "run:1", "Open b")], "a row alone has neither role nor name"


def test_runs_are_grouped_by_folder(make_trace: TraceMaker, open_app: Opener, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    make_trace("sub/b.jsonl")
    assert "ss-folder" not in html_of(open_app(tmp_path))
    make_trace("a.jsonl")
    html = html_of(open_app(tmp_path, tmp_path / "a.jsonl", page="runs"))
    assert html.count('<tr class="ss-folder">') == 2


def test_a_large_file_without_index_is_read_only_when_asked(
    make_trace: TraceMaker, open_app: Opener, click: Click, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = make_trace("large.jsonl")
    monkeypatch.setattr(runs_page, "LARGE_BYTES", 100)
    app = open_app(tmp_path)
    assert "1 trace is not indexed yet" in html_of(app)
    assert "3.000" not in html_of(app)
    assert not path.with_name("large.jsonl.idx").exists()
    app = click(app, "index:all")
    assert "not indexed yet" not in html_of(app)
    assert ">1.667<" in html_of(app)
    assert path.with_name("large.jsonl.idx").exists()


def test_a_trace_that_grows_is_listed_anew(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace(run_end=False)
    app = open_app(path, page="runs")
    assert "truncated, or still in progress" in html_of(app)
    make_trace(run_end=True)
    assert "truncated" not in html_of(checked(app.run()))
    path.write_bytes(path.read_bytes().replace(b'"mode":"fused"', b'"mode":"eager"'))
    os.utime(path, (0, 0))
    assert "eager, float32" in html_of(checked(app.run())), "as long as before, and yet another file"


def test_the_list_tells_what_the_oracle_finds_in_small_files(
    make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def negative(step: Step) -> Step:
        assert step.tensors is not None
        return step.model_copy(update={"tensors": step.tensors.model_copy(update={"positions": [9] * 7})})

    monkeypatch.setattr(runs_page, "CHECKS", Checks())
    make_trace("sound.jsonl")
    make_trace("wrong.jsonl", change=negative)
    html = html_of(open_app(tmp_path))
    assert re.search(r"ss-is-good[^/]*</b>complete, [0-9]+ checks hold", html)
    assert re.search(r"ss-is-bad[^/]*</b>complete, [0-9]+ invariants? violated", html)
    assert html.count("ss-is-good") == 1


def test_the_list_waits_for_no_oracle(
    make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = Checks()
    monkeypatch.setattr(known, "check_later", lambda stamps: 0)
    monkeypatch.setattr(runs_page, "CHECKS", known)
    monkeypatch.setattr(health_page, "CHECKS", known)
    monkeypatch.setattr(checks, "CHECK_SECONDS", 0.0)
    make_trace("sound.jsonl")
    app = open_app(tmp_path)
    assert "complete, not checked" in html_of(app)
    assert "ss-is-good" not in html_of(app)
    monkeypatch.setattr(checks, "CHECK_SECONDS", 9.0)
    monkeypatch.setattr(checks, "CHECK_BYTES", 100)
    assert "complete, not checked" in html_of(checked(app.run()))
    open_app(tmp_path, page="health", run="sound.jsonl")
    assert "checks hold" in html_of(checked(app.run())), "somebody has asked meanwhile"
    make_trace("sound.jsonl", turns=[[1, 1]])
    assert "complete, not checked" in html_of(checked(app.run())), "another file"


def test_what_takes_longer_is_checked_meanwhile_and_damage_is_named(
    make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known, seen = Checks(), Event()

    def check_once_seen(path: Path) -> OracleReport:
        assert seen.wait(30)
        return check_trace(path)

    monkeypatch.setattr(runs_page, "CHECKS", known)
    monkeypatch.setattr(checks, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(checks, "check_trace", check_once_seen)
    make_trace("sound.jsonl")
    lines = make_trace("damaged.jsonl").read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"parents":[0,', b'"parents":[x,')
    (tmp_path / "damaged.jsonl").write_bytes(b"".join(lines))
    app = open_app(tmp_path)
    assert "Checking 2 files." in html_of(app)
    seen.set()
    deadline = time.monotonic() + 30
    while known.num_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    html = html_of(checked(app.run()))
    assert "Checking" not in html
    assert re.search(r"ss-is-good[^/]*</b>complete, [0-9]+ checks hold", html)
    assert re.search(r"ss-is-bad[^/]*</b>damaged: line 4", html)


def test_names_on_disk_are_hostile_too(hostile_folder: Path, open_app: Opener, tmp_path: Path) -> None:
    html = html_of(open_app(hostile_folder))
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "<img" not in html
    assert "\u202e" not in html
    odd = tmp_path / os.fsdecode(b"half-\xff.jsonl")
    odd.write_bytes(FUSED.read_bytes())
    assert len(listed(open_app(tmp_path))) == 1


def test_the_table_is_well_formed_whatever_is_said_of_a_run() -> None:
    whole = summaries(EAGER)[0]
    part = glance(Run("<b>&\x00", FUSED))
    assert isinstance(part, RunSummary)
    shown = RunList(runs=[whole, part], folders=[("a", [0]), ("b&<", [1])], baseline="<b>&\x00", seconds_to_index=3.0)
    board = ElementTree.fromstring(run_board(shown).html)
    asked = {element.get("data-do", "order:") for element in board.iter()}
    asked = {request for request in asked if not request.startswith("order:")}
    assert asked == {"run:0", "run:1", "baseline:0", "baseline:1", "candidate:0", "candidate:1", "index:all"} | {
        "hide:0",
        "hide:1",
    }


def test_what_is_not_known_comes_last() -> None:
    part = glance(Run("a.jsonl", FUSED))
    assert isinstance(part, RunSummary)
    for order in (Order("steps", falls) for falls in (True, False)):
        assert [one.run.name for one in in_order([part, *ONE], order)] == ["eager.jsonl", "a.jsonl"]


def test_every_head_sorts_by_what_its_column_shows() -> None:
    runs = summaries(*(path for path in sorted(SAMPLES.glob("*.jsonl")) if path.stem != "prompts"))
    for by in KEYS:
        both = [[run.run.name for run in in_order(runs, Order(by, falls))] for falls in (True, False)]
        assert sorted(both[0]) == sorted(both[1]) == sorted(run.run.name for run in runs)
    assert [run.run.name for run in in_order(runs, Order("size", falls=True))] == [
        path.name for path in sorted((run.run.path for run in runs), key=lambda path: -path.stat().st_size)
    ]
    asked = set(re.findall(r'data-do="order:([a-z]+)[.]', run_board(RunList(runs=runs, folders=[("", [0])])).html))
    assert asked == set(KEYS)
