"""The Trace health page: what is wrong with a trace as a whole is named, and leads to its step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.toy_run import Toy, toy_lines
from support.traces import FAULTY, FUSED, load, store

from specscope.viewer.drawing.tables.invariants import go_button
from specscope.viewer.screens import health as health_page
from specscope.viewer.screens import inspector, session

TraceMaker = Callable[..., Path]
NOTHING: dict[str, list[Any]] = {"passed": [], "failed": [], "skipped": []}


def open_health(open_app: Opener, path: Path) -> AppTest:
    """The page about one file."""
    return open_app(path, page="health")


def requests_of(app: AppTest) -> set[str]:
    """All that a click on the page may ask for."""
    board = ElementTree.fromstring(boards_of(app)[0]["html"])
    return {request for element in board.iter() if (request := element.get("data-do")) is not None}


def test_a_sound_trace_is_whole_and_says_what_it_holds(open_app: Opener) -> None:
    app = open_health(open_app, FUSED)
    html = html_of(app)
    assert "This trace is complete, and nothing in it is violated" in html
    for words in ("invariants hold", "passed wherever they were judged", "source_checksums, prefix_before"):
        assert words in html
    for words in ("LlamaForCausalLM, 10 layers of 256", "at most 40 tokens", "specscope check"):
        assert words in html
    assert not requests_of(app)
    raw = json.loads(boards_of(app)[0]["raw"]["manifest"])
    assert raw["run_id"] == load(FUSED)[0]["run_id"]


def test_a_violation_leads_to_its_step(open_app: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Callable[[str], None]] = []
    show = inspector.show_one_board

    def show_board(board: Any, *, on_request: Callable[[str], None], **others: Any) -> None:
        heard.append(on_request)
        show(board, on_request=on_request, **others)

    monkeypatch.setattr(health_page, "show_one_board", show_board)
    app = open_health(open_app, FAULTY)
    html = html_of(app)
    assert "Fault F16 was injected into this run" in html
    assert "The engine itself recorded violated invariants in 53 steps" in html
    assert "tensors.position-is-length-plus-depth" in html
    assert "slot 2: position 31, wanted 30 = 29 + depth 1" in html
    assert requests_of(app) == {"go:0.0"}
    for nonsense in ("go:0", "go:1.x", "go:-1.2", "run:0", "go:1.2.3"):
        heard[-1](nonsense)
    assert query_of(checked(app.run()))["page"] == "health"
    heard[-1]("go:1.2")
    found = query_of(checked(app.run()))
    assert (found["page"], found["run"], found["turn"], found["step"]) == ("step", "fused-F16.jsonl", "1", "2")


def test_a_torn_end_is_counted(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace(run_end=False)
    with path.open("ab") as file:
        file.write(b'{"kind":"step"')
    html = html_of(open_health(open_app, path))
    assert "This trace is truncated: it has no end record" in html
    assert "A torn record of 14 bytes at the end is left out." in html
    assert "This trace is complete" not in html


def test_an_end_that_is_not_complete(make_trace: TraceMaker, open_app: Opener, tmp_path: Path) -> None:
    lines = load(make_trace())
    lines[-1]["reason"] = "interrupted"
    assert "The run was interrupted" in html_of(open_health(open_app, store(lines, tmp_path / "early.jsonl")))


def test_failures_are_told_with_the_command_that_runs_them_again(
    make_trace: TraceMaker, open_app: Opener, tmp_path: Path
) -> None:
    failure = {
        **{"seq": 9, "kind": "failure", "turn": 0, "step": 2, "phase": "verify", "error": "RuntimeError<b>"},
        **{"message": "no memory", "inputs": {}, "state": {"context_ids": [1], "num_emitted": 0}},
    }
    app = open_health(open_app, store([*load(make_trace())[:-1], failure], tmp_path / "failed.jsonl"))
    html = html_of(app)
    assert "The engine failed: RuntimeError&lt;b&gt;" in html
    assert "turn 0, step 2, phase verify" in html
    assert "specscope repro" in html
    assert "go:0.2" in requests_of(app)


def test_what_a_writer_does_not_supply(make_trace: TraceMaker, open_app: Opener, tmp_path: Path) -> None:
    lines = load(make_trace())
    lines[0]["capabilities"] = ["tree", "stop", "verify", "weather.report"]
    for line in lines:
        line.pop("tensors", None)
    html = html_of(open_health(open_app, store(lines, tmp_path / "part.jsonl")))
    assert "No decision of this run can be compared" in html
    assert "which nodes were accepted, and the bonus token; without it no decision can be compared" in html
    assert "Unknown to this version: weather." in html
    assert "not recorded: tensors" in html, "why invariants were skipped"


def test_a_broken_promise_is_named(make_trace: TraceMaker, open_app: Opener, tmp_path: Path) -> None:
    lines = load(make_trace())
    next(line for line in lines if line["kind"] == "step").pop("timing")
    html = html_of(open_health(open_app, store(lines, tmp_path / "broken.jsonl")))
    assert "1 step lacks what the manifest promises" in html
    assert "promised and absent: timing" in html


def test_replays_redaction_and_other_formats_are_named(
    make_trace: TraceMaker, open_app: Opener, tmp_path: Path
) -> None:
    lines = load(make_trace())
    lines[0] |= {"replay_of": "another", "redaction": "0" * 16, "original_schema": "specscope.trace/0.9"}
    html = html_of(open_health(open_app, store(lines, tmp_path / "odd.jsonl")))
    for words in (
        "This is a replay",
        "It replays the run another.",
        "This trace is redacted",
        "It was written as specscope.trace/0.9",
    ):
        assert words in html
    lines = load(make_trace())
    lines[0]["schema"] = "specscope.trace/1.99"
    assert "This trace is of a newer format" in html_of(open_health(open_app, store(lines, tmp_path / "new.jsonl")))


def test_a_lossy_rule_is_named(open_app: Opener, tmp_path: Path) -> None:
    path = store(toy_lines(Toy("typical", levels=False)), tmp_path / "typical.jsonl")
    assert "lossy (typical acceptance)" in html_of(open_health(open_app, path))


def test_a_large_file_is_checked_only_when_asked(
    make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LARGE_BYTES", 100)
    app = open_health(open_app, make_trace())
    assert "Not checked yet" in html_of(app)
    assert "This trace is complete" not in html_of(app), "nobody knows yet"
    checked(app.button(key="read-whole").click().run())
    assert "This trace is complete, and nothing in it is violated" in html_of(app)
    assert not [button for button in app.button if button.key == "read-whole"]


def test_hostile_texts_are_escaped(make_trace: TraceMaker, open_app: Opener, tmp_path: Path) -> None:
    lines = load(make_trace())
    lines[0] |= {"engine": "<script>x</script>", "fault": "\u202e<b>", "versions": {"<i>": "&"}}
    found = {"id": "<s>", "witness": "<em>here</em>"}
    next(line for line in lines if line["kind"] == "step")["invariants"] = {**NOTHING, "failed": [found]}
    html = html_of(open_health(open_app, store(lines, tmp_path / "<u>.jsonl")))
    for shown in ("&lt;script&gt;", "&lt;s&gt;: &lt;em&gt;here&lt;/em&gt;"):
        assert shown in html
    for markup in ("<script", "<i>", "<u>", "<s>", "<em>here", "\u202e"):
        assert markup not in html


def test_a_button_names_only_places_that_a_link_can() -> None:
    assert 'data-do="go:3.4"' in go_button(3, 4)
    assert [go_button(*place) for place in ((-1, 0), (0, -1), (10**400, 0), (0, 10**9))] == [""] * 4
