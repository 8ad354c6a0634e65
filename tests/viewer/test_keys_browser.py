"""In a real browser, without a pointer: what can be clicked on *Runs* and *Diff* is reached and opened by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from support.browser import BROWSER, WAIT
from support.traces import EAGER, FAULTY, FUSED, load, store
from support.viewing import Running, viewer

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pair, and two runs that differ in their budgets alone."""
    folder = tmp_path_factory.mktemp("keys")
    for path in (EAGER, FAULTY):
        (folder / path.name).write_bytes(path.read_bytes())
    lines = load(FUSED)
    for budget in (4, 8):
        lines[0]["tree_policy"]["budget"] = budget
        store(lines, folder / f"budget-{budget}.jsonl")
    with viewer(folder / EAGER.name, folder / FAULTY.name, folder) as running:
        yield running


def open_page(page: Page, running: Running, query: str, ready: str) -> None:
    page.goto(f"{running.address}/?{query}")
    expect(page.locator(ready).first).to_be_visible(timeout=WAIT)
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=WAIT)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_point_of_the_sweep_opens_its_run(serving: Running, page: Page, key: str) -> None:
    open_page(page, serving, "page=runs", ".ss-sweep")
    point = page.get_by_role("button", name=re.compile("^budget-8.jsonl: budget 8")).first
    point.focus()
    page.keyboard.press(key)
    expect(page).to_have_url(re.compile("page=step&run=budget-8"), timeout=WAIT)


def test_space_elsewhere_opens_nothing(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=runs", ".ss-sweep")
    page.locator(".inspector").first.click(position={"x": 2, "y": 2})
    page.keyboard.press("Space")
    page.wait_for_timeout(500)
    expect(page).to_have_url(re.compile("page=runs"))


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_line_of_what_differs_between_runs_opens_its_run(serving: Running, page: Page, key: str) -> None:
    open_page(page, serving, "page=runs", ".ss-card-fields")
    rows = page.locator(".ss-card-fields button.ss-opens-run")
    names = [name.strip() for name in rows.all_text_contents()]
    rows.first.focus()
    page.keyboard.press("Tab")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press(key)
    expect(page).to_have_url(re.compile(f"page=step&run={names[1]}"), timeout=WAIT)


def test_a_difference_says_beside_it_what_is_known_of_its_node(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=diff", ".ss-card-differences tr[data-node]")
    rows = page.locator(".ss-card-differences tr[data-node]")
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    expect(rows.nth(1)).to_be_focused()
    name = rows.nth(1).get_attribute("data-node")
    pop = page.locator(".pop")
    expect(pop).to_be_visible()
    expect(pop).to_contain_text("baseline")
    for _ in range(2):  # selected, and let go of
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(rf"node={name}(&|$)"), timeout=WAIT)
        page.keyboard.press("Escape")
        expect(page).not_to_have_url(re.compile("node="), timeout=WAIT)
        rows.nth(1).focus()
    page.keyboard.press("Shift+Tab")
    expect(pop).to_be_hidden()
