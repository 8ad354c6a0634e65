"""The Timeline page in a real browser: wheel, drag, clicks and keys, at ten thousand tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from support.browser import BROWSER, FLAGS, WAIT
from support.timelines import write_timeline
from support.viewing import viewer

pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser"),
    pytest.mark.slow,
]
MAIN = ".ss-card-flow .ss-flow"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a viewer of a run of ten thousand tokens answers."""
    trace = write_timeline(tmp_path_factory.mktemp("timeline") / "long.jsonl", 10_000)
    with viewer(trace) as running:
        yield running.address


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """The page, with token 40 of the turn selected; no error may happen on it."""
    trouble: list[str] = []
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=BROWSER, args=FLAGS) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"{address}/?page=timeline&run=long.jsonl&turn=0&step=40")
        expect(page.locator(f"{MAIN} .piece").first).to_be_visible(timeout=WAIT)
        yield page
    assert trouble == []


def window(page: Page) -> tuple[int, int]:
    """What is shown, in microseconds."""
    start, end = (page.locator(MAIN).get_attribute("data-window") or "").split("-")
    return int(start), int(end)


def await_other_window(page: Page, before: tuple[int, int]) -> tuple[int, int]:
    """The window, once it is drawn anew."""
    words = "{}-{}".format(*before)
    expect(page.locator(MAIN)).not_to_have_attribute("data-window", words, timeout=WAIT)
    expect(page).to_have_url(re.compile("window="), timeout=WAIT)
    return window(page)


def test_gestures_move_the_window_and_clicks_select(page: Page) -> None:
    before = window(page)
    plot = page.locator(f"{MAIN} .lane").first.bounding_box()
    assert plot is not None
    x, y = plot["x"] + plot["width"] / 2, plot["y"] + plot["height"] / 2
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    near = await_other_window(page, before)
    assert near[1] - near[0] == pytest.approx(0.8 * (before[1] - before[0]), rel=0.01)
    assert sum(near) == pytest.approx(sum(before), rel=0.01), "about the pointer, which is in the middle"
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - plot["width"] / 4, y, steps=4)
    page.mouse.up()
    later = await_other_window(page, near)
    assert later[0] - near[0] == pytest.approx((near[1] - near[0]) / 4, rel=0.05)
    dropped = page.locator(f"{MAIN} .piece.dropped")
    dropped.nth(dropped.count() // 2).click(force=True)  # those at the ends lie beside the window
    expect(page.locator(".ss-card-life")).to_contain_text("dropped: it was in flight", timeout=WAIT)
    expect(page).to_have_url(re.compile("node="), timeout=WAIT)


def test_keys_go_from_token_to_token_and_out_to_the_whole_turn(page: Page) -> None:
    life = page.locator(".ss-card-life")
    expect(life).to_contain_text("position 45", timeout=WAIT)
    page.keyboard.press("ArrowRight")
    expect(life).to_contain_text("position 46", timeout=WAIT)
    page.keyboard.press("n")
    expect(life).to_contain_text("refill: the true token", timeout=WAIT)
    page.keyboard.press("0")
    expect(page.locator(f"{MAIN} .busy.accepted").first).to_be_visible(timeout=WAIT)
    expect(page.locator(f"{MAIN} .piece")).to_have_count(0)
    whole = window(page)
    page.locator(f"{MAIN} .hit").nth(20).click()
    assert await_other_window(page, whole)[0] > 6_000_000
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("page=step"), timeout=WAIT)


def test_a_narrow_page_scrolls_in_its_cards_and_keeps_its_letters(page: Page) -> None:
    page.set_viewport_size({"width": 768, "height": 900})
    for drawing in (MAIN, ".ss-flow-whole .ss-flow"):
        sizes = page.locator(f"{drawing} text").evaluate_all(
            """texts => {
              const svg = texts[0].closest('.ss-flow');
              const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
              return texts.map((text) => parseFloat(getComputedStyle(text).fontSize) * scale);
            }"""
        )
        assert min(sizes) >= 10.99, drawing
        beyond = page.locator(drawing).first.evaluate(
            "svg => { const card = svg.closest('.ss-box'); return card.scrollWidth - card.clientWidth; }"
        )
        assert beyond <= 0, f"{drawing} leaves its card"
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
