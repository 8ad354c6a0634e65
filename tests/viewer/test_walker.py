"""The way from step to step: keys and answers in every order, in a real browser but without a viewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page, sync_playwright
from support.browser import BROWSER, FLAGS

from specscope.viewer import screens

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser")

WALKER = Path(screens.__file__).with_name("walker.js")
LAST = 12
#: Plays events against a walker and a page that answers one question after the other, as a line of requests asks them.
PLAY = """
([source, events, last]) => {
  const timers = [];
  let clock = 0;
  const setTimeout = (call, delay = 0) => timers.push({ call, at: clock + delay });
  const clearTimeout = (number) => timers[number - 1] && (timers[number - 1].call = () => {});
  const requestAnimationFrame = (call) => setTimeout(call, 16);
  const parts = ["setTimeout", "clearTimeout", "requestAnimationFrame"];
  const made = new Function(...parts, `${source}; return walker;`);
  const walker = made(setTimeout, clearTimeout, requestAnimationFrame);
  const asked = []; // the first of them is at the page, or lost
  let [turn, scene, now, looked, end] = ["first", 0, 0, 0, last];
  const walk = walker({
    show: (step) => (looked = step),
    ask: (text, settled = () => {}) => asked.push({ text, settled, isLost: false }),
    last: () => end,
  });
  const words = (step) => `step ${step} of the ${turn} turn, drawn for scene ${scene}`;
  const draw = (step) => ({ html: words(step), notes: {}, raw: {} });
  function tell(said) {
    const data = { turn, scene, now, ahead: {}, ...said };
    if (walk.take(data)) {
      looked = data.now;
      if (data.html !== words(looked)) throw new Error(`${words(looked)} is shown as ${data.html}`);
    }
  }
  function answer() {
    if (!asked.length || asked[0].isLost) return;
    const { text, settled } = asked.shift();
    const [what, where] = text.split(":");
    const [step, ...ahead] = where.split(".").map(Number);
    now = Math.min(step, end);
    settled(true);
    const boards = Object.fromEntries(ahead.map((other) => [other, draw(other)]));
    const nothing = { html: null, notes: null, raw: null };
    tell({ ahead: boards, ...(what === "shown" ? nothing : draw(now)) });
  }
  function lose() {
    if (!asked.length || asked[0].isLost) return;
    asked[0].isLost = true;
    setTimeout(() => asked.shift().settled(false), 8000);
  }
  let expected = 0;
  const happen = {
    right: () => { if (walk.from() < end) walk.aimAt((expected = walk.from() + 1)); },
    left: () => { if (walk.from() > 0) walk.aimAt((expected = walk.from() - 1)); },
    end: () => walk.aimAt((expected = end)),
    answer,
    lose,
    rerun: () => tell(draw(now)),
    changed: () => { // what boards depend on: a note was saved, or the trace has grown
      scene += 1;
      tell(draw(now));
    },
    shorter: () => { // recorded again
      end = 5;
      now = Math.min(now, end);
      happen.changed();
    },
    other: () => { // another turn was chosen from a list
      [turn, now, expected] = [`${turn} other`, 0, 0];
      lose();
      asked.splice(1);
      happen.changed();
    },
    wait: () => {
      clock += 50;
      for (const timer of timers.filter(({ at }) => at <= clock)) {
        const { call } = timer;
        timer.call = () => {};
        call();
      }
    },
  };
  tell(draw(0));
  for (const event of events) happen[event]();
  for (let round = 0; round < 1000; round++) {
    answer();
    happen.wait();
  }
  return { looked, now, expected, waits: walk.isWaiting() };
}
"""


@pytest.fixture(scope="module")
def blank() -> Iterator[Page]:
    """An empty page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser.new_page()
        browser.close()


def play(page: Page, events: list[str]) -> dict[str, int]:
    """What is looked at, where the page is, and where keys have led, once nothing happens any more."""
    end = page.evaluate(PLAY, [WALKER.read_text(), events, LAST])
    assert isinstance(end, dict)
    return end


def settled(step: int) -> dict[str, int]:
    """Everything is at that step, and nothing is waited for."""
    return {"looked": step, "now": step, "expected": step, "waits": False}


EVENTS = st.sampled_from([*["right"] * 3, "left", "end", *["answer"] * 2, "lose", "rerun", "wait", "changed", "other"])


@given(events=st.lists(EVENTS, max_size=40))
def test_what_is_looked_at_is_where_keys_have_led(blank: Page, events: list[str]) -> None:
    end = play(blank, events)
    assert end["looked"] == end["now"] == end["expected"]


def test_an_answer_that_is_newer_than_what_was_shown_early_is_shown(blank: Page) -> None:
    to_a_board = ["wait", "answer", "right"]  # step 1 is shown at once, because its board was sent ahead
    events = [*to_a_board, "right", "right", "answer", "answer"]
    assert play(blank, events) == settled(3)


def test_a_question_that_was_lost_is_asked_again(blank: Page) -> None:
    assert play(blank, ["right", "lose"]) == settled(1)


def test_a_key_is_not_forgotten_where_a_note_is_saved_meanwhile(blank: Page) -> None:
    assert play(blank, ["right", "right", "changed"]) == settled(2)


def test_a_question_from_before_a_change_is_still_answered(blank: Page) -> None:
    assert play(blank, ["right", "left", "changed"]) == settled(0)


def test_a_step_that_a_shorter_turn_does_not_have_is_not_waited_for(blank: Page) -> None:
    end = play(blank, ["end", "answer", "left", "lose", "shorter"])
    assert (end["looked"], end["now"], end["waits"]) == (5, 5, False)


def test_a_step_that_the_page_could_not_reach_is_not_waited_for(blank: Page) -> None:
    end = play(blank, ["end", "answer", "left", "shorter", "answer"])
    assert (end["looked"], end["now"], end["waits"]) == (5, 5, False)


def test_a_key_that_leads_to_where_the_page_is_waits_for_nothing(blank: Page) -> None:
    assert play(blank, ["end", "answer", "end"]) == settled(LAST)


def test_a_question_of_another_turn_that_is_lost_is_nothing_to_this_one(blank: Page) -> None:
    assert play(blank, ["right", "other", "wait", "right", "left"]) == settled(0)


def test_a_board_that_was_cleared_meanwhile_is_asked_for_until_it_comes(blank: Page) -> None:
    assert play(blank, ["right", "left", "answer", "changed", "answer", "lose"]) == settled(0)
    assert play(blank, ["right", "left", "answer", "changed", "answer", "lose", "end", "changed"]) == settled(LAST)
