"""What a board asks of its page, one thing after the other: over a lost connection, and once it was replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from support.browser import BROWSER

from specscope.viewer import screens
from specscope.viewer.drawing.board import Board
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.screens import inspector

LINE = Path(screens.__file__).with_name("requests.js")
#: A line of requests in an empty page whose time only passes where the test says so.
BEGIN = """
(source) => {
  window.sent = [];
  window.timers = [];
  window.isAlive = true;
  document.body.setAttribute("data-test-connection-state", "CONNECTED");
  const later = (call) => timers.push(call);
  window.line = new Function("setTimeout", "clearTimeout", `${source}; return requestLine;`)(later, () => {})(
    () => window.isAlive
  );
  line.take(null, (name, request) => sent.push([name, request.value, request.number]));
  line.ask("done", "turn:next");
  line.ask("picked", "3");
}
"""


@pytest.fixture
def line(page: Page) -> Page:
    """A page with a line of which the first of two requests was sent."""
    page.evaluate(BEGIN, LINE.read_text())
    return page


def sent(page: Page) -> list[tuple[str, str]]:
    """What was asked for so far."""
    return [(name, value) for name, value, _ in page.evaluate("sent")]


needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH")


@needs_browser
def test_the_next_is_asked_once_the_last_was_answered(line: Page) -> None:
    assert sent(line) == [("done", "turn:next")]
    line.evaluate("line.take(sent[0][2], (name, request) => sent.push([name, request.value, request.number]))")
    assert sent(line) == [("done", "turn:next"), ("picked", "3")]


@needs_browser
def test_what_was_lost_with_the_connection_is_asked_again_by_the_same_number(line: Page) -> None:
    for state in ("PINGING_SERVER", "CONNECTED"):
        line.evaluate("(state) => document.body.setAttribute('data-test-connection-state', state)", state)
    line.wait_for_function("timers.length > 1")
    line.evaluate("timers.slice(1).forEach((call) => call())")
    (first, again) = line.evaluate("sent")[:2]
    assert first == again


@needs_browser
def test_a_board_that_was_replaced_asks_for_nothing_more(line: Page) -> None:
    line.evaluate("isAlive = false; timers.forEach((call) => call())")
    assert sent(line) == [("done", "turn:next")]


def test_the_page_does_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Callable[[], None]] = {}
    state: dict[str, Any] = {}
    monkeypatch.setattr(inspector, "_show", lambda **settings: given.update(settings))
    monkeypatch.setattr("streamlit.session_state", state)
    asked: list[str | None] = []
    board = Board(NOTHING)
    inspector.show_board(
        lambda: board, key="b", title="", now=None, picked=None, on_pick=asked.append, on_request=asked.append
    )
    for number in (1, 1, 2):
        state["b"] = {"done": {"number": number, "value": "turn:next"}, "picked": None}
        given["on_done_change"]()
    for _ in range(2):
        state["b"] = {"picked": {"number": 3, "value": "5"}}
        given["on_picked_change"]()
    assert asked == ["turn:next", "turn:next", "5"]
