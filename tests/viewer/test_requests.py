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
  const clear = (number) => number && (timers[number - 1] = () => {});
  window.pass = () => timers.forEach((call, at) => { timers[at] = () => {}; call(); });
  window.line = new Function("setTimeout", "clearTimeout", `${source}; return requestLine;`)(later, clear)(
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


ANSWER = "line.take(sent.at(-1)[2], (name, request) => sent.push([name, request.value, request.number]))"


def sent(page: Page) -> list[tuple[str, str]]:
    """What was asked for so far."""
    return [(name, value) for name, value, _ in page.evaluate("sent")]


needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH")


@needs_browser
def test_the_next_is_asked_once_the_last_was_answered(line: Page) -> None:
    assert sent(line) == [("done", "turn:next")]
    line.evaluate(ANSWER)
    assert sent(line) == [("done", "turn:next"), ("picked", "3")]


@needs_browser
@pytest.mark.parametrize(
    ("name", "during", "after"),
    [
        ("data-test-script-state", "running", "notRunning"),
        ("data-test-connection-state", "PINGING_SERVER", "CONNECTED"),
    ],
)
def test_a_slow_answer_is_waited_for_and_a_lost_one_is_not(line: Page, name: str, during: str, after: str) -> None:
    line.evaluate("settled = []; line.ask('noted', 'a note', (isAnswered) => settled.push(isAnswered))")
    for _ in range(2):
        line.evaluate(ANSWER)
    line.evaluate("([name, state]) => document.body.setAttribute(name, state)", [name, during])
    for _ in range(3):
        line.evaluate("pass()")
        assert (set(sent(line)[2:]), line.evaluate("settled")) == ({("noted", "a note")}, [])
    line.evaluate("([name, state]) => document.body.setAttribute(name, state)", [name, after])
    line.evaluate("line.ask('done', 'find')")
    line.evaluate("pass()")
    assert (sent(line)[-1], line.evaluate("settled")) == (("done", "find"), [False])


@needs_browser
def test_who_asks_hears_that_the_page_has_answered(line: Page) -> None:
    line.evaluate("settled = []; line.ask('noted', 'a note', (isAnswered) => settled.push(isAnswered))")
    for answered in ([], [], [True]):
        line.evaluate(ANSWER)
        assert line.evaluate("settled") == answered
    assert not line.evaluate("line.isBusy()")


@needs_browser
def test_what_turns_a_board_that_is_not_there_yet_is_asked_once(line: Page) -> None:
    line.evaluate("settled = []")
    for request in ("branch:3", "branch:3", "turn:next", "turn:next", "branch:3"):
        line.evaluate("(request) => line.ask('done', request, () => settled.push(request))", request)
    for _ in range(6):
        line.evaluate(ANSWER)
    asked = [value for name, value in sent(line) if name == "done"]
    assert asked == ["turn:next", "branch:3", "turn:next", "turn:next", "branch:3"]
    assert line.evaluate("settled") == ["branch:3", *asked[1:]], "both who asked hear of it"


@needs_browser
def test_of_several_selections_that_wait_the_newest_is_asked(line: Page) -> None:
    line.evaluate("line.ask('picked', '4'); line.ask('picked', '5')")
    assert line.evaluate("line.isAsked('picked')")
    line.evaluate(ANSWER)
    assert sent(line) == [("done", "turn:next"), ("picked", "5")]
    assert line.evaluate("line.isAsked('picked')")
    line.evaluate(ANSWER)
    assert not line.evaluate("line.isAsked('picked')")


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
    line.evaluate("isAlive = false; pass()")
    assert sent(line) == [("done", "turn:next")]


#: The field of a note alone, and what is asked for is only kept.
NOTE = """
(source) => {
  document.body.innerHTML = '<div class="ss-noted"><textarea data-place="0 0" data-step="0"></textarea>' +
    '<button>Save</button><p role="status"></p></div>';
  window.saved = [];
  new Function("setTimeout", `${source}; return notedSteps;`)((call) => call())(document.body, document.body, {
    save: (note, settled) => saved.push({ note, settled }),
    textOf: () => "",
  });
}
"""


@needs_browser
def test_a_note_waits_for_its_turn_and_is_sent_again_only_where_it_was_lost(page: Page) -> None:
    page.evaluate(NOTE, LINE.with_name("noted.js").read_text())
    page.locator("textarea").fill("a thought")
    page.locator("button").click()
    for tries in range(1, 5):
        assert page.evaluate("saved.map(({ note }) => note)") == ['{"step":0,"text":"a thought"}'] * tries
        assert page.locator("[role=status]").text_content() == "saving"
        page.evaluate("saved.at(-1).settled(false)")
    assert page.evaluate("saved.length") == 4
    assert page.locator("[role=status]").text_content() == "not saved yet"


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
