"""Once through the viewer in Firefox: every page, keys, clicks, a drag across a chart, a bundle and a report.

What each of them must do is tested in Chromium; here is whether it does so in another browser.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import LOOK
from support.called import specscope
from support.firefox import FIREFOX, FirefoxPage, firefox
from support.traces import EAGER, FAULTY, FUSED
from support.viewing import Running, viewer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FIREFOX, reason="no firefox-esr and no firefox on the PATH: the viewer is not seen in Firefox"
    ),
]
#: What stands on each page once it is drawn.
DRAWN = {
    "runs": "table",
    "step": "svg.ss-tree",
    "text": ".ss-text",
    "find": ".ss-turns",
    "diff": "svg.ss-tree",
    "metrics": ".js-plotly-plot .main-svg",
    "health": "table",
}
#: Elements by a selector, those inside of components included, which have documents of their own.
FOUND = """
((selector) => {
  const all = (root) => [
    ...root.querySelectorAll(selector),
    ...[...root.querySelectorAll("*")].flatMap((element) => element.shadowRoot ? all(element.shadowRoot) : []),
  ];
  return all(document);
})
"""


@pytest.fixture(scope="module")
def serving(hostile_folder: Path) -> Iterator[Running]:
    with viewer(EAGER, FAULTY, FUSED, hostile_folder) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[FirefoxPage]:
    with firefox() as page:
        page.resize(1280, 900)
        yield page


@pytest.fixture
def page(browser: FirefoxPage) -> Iterator[FirefoxPage]:
    """The browser's page, on which nothing may go wrong, and which asks nobody else for anything."""
    browser.go("about:blank")  # what a page that is left cannot fetch any more is an error to Firefox
    browser.errors.clear()
    browser.requests.clear()
    yield browser
    title = browser.evaluate("document.title")
    assert browser.errors == []
    assert [
        url for url in browser.requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "file:"))
    ] == []
    assert "pwned" not in title


def found(selector: str) -> str:
    """The expression that finds elements."""
    return f"{FOUND}({selector!r})"


def box(page: FirefoxPage, selector: str) -> dict[str, float]:
    """Where the first of them is seen, after the page has scrolled to it."""
    page.evaluate(f"{found(selector)}[0].scrollIntoView({{block: 'center'}})")
    place: dict[str, float] = page.evaluate(f"{found(selector)}[0].getBoundingClientRect()")
    return place


def open_page(page: FirefoxPage, running: Running, drawn: str, /, **query: object) -> None:
    page.go(f"{running.address}/?{'&'.join(f'{name}={value}' for name, value in query.items())}")
    page.wait_for(f"{found(drawn)}.length > 0")
    settle(page)


def settle(page: FirefoxPage) -> None:
    """Waits until Streamlit is at rest."""
    page.wait_for("document.querySelector('[data-testid=stApp]').dataset.testScriptState", "notRunning")


def parameter(name: str) -> str:
    """The expression for a parameter of the address."""
    return f"new URLSearchParams(location.search).get({name!r})"


@pytest.mark.parametrize("name", list(DRAWN))
def test_every_page_is_drawn_and_nothing_of_a_trace_runs(serving: Running, page: FirefoxPage, name: str) -> None:
    open_page(page, serving, DRAWN[name], page=name, run="sound.jsonl", baseline="sound.jsonl", candidate="wrong.jsonl")
    seen: dict[str, Any] = page.evaluate(f"({LOOK})()")
    assert (seen["forbidden"], seen["attributes"]) == ([], [])
    assert seen["text"].strip()
    assert page.evaluate(f"{found('[data-testid=stException]')}.length") == 0


def test_keys_move_and_a_held_key_loses_no_step(serving: Running, page: FirefoxPage) -> None:
    open_page(page, serving, "svg.ss-tree", page="step", run="long.jsonl")
    page.press(*["ArrowRight"] * 20)
    page.wait_for(parameter("step"), "20")
    page.wait_for(f"{found('svg.ss-tree')}[0].getAttribute('aria-label').includes('step 20')")
    settle(page)
    page.press("End")
    page.wait_for(parameter("step"), "29")
    settle(page)
    page.press("ArrowRight")
    page.wait_for(parameter("turn"), "1")
    settle(page)
    page.press("?")
    page.wait_for(f"{found('.keys')}[0].hidden", False)
    page.press("Escape")
    page.wait_for(f"{found('.keys')}[0].hidden", True)


def test_a_click_selects_a_node_everywhere(serving: Running, page: FirefoxPage) -> None:
    open_page(page, serving, "svg.ss-tree", page="step", run="sound.jsonl")
    node = box(page, "svg.ss-tree g.node[data-node='3'] rect.box")
    page.drag((node["x"] + node["width"] / 2, node["y"] + node["height"] / 2))
    page.wait_for(parameter("node"), "3")
    page.wait_for(f"{found('tr[data-node]')}.filter((row) => row.classList.contains('picked')).length", 1)


def test_a_drag_across_a_chart_zooms(serving: Running, page: FirefoxPage) -> None:
    open_page(page, serving, ".st-key-card-course .main-svg", page="metrics", run="fused.jsonl")
    plot = box(page, ".st-key-card-course .nsewdrag")
    x, y = plot["x"], plot["y"] + 60
    page.drag((x + plot["width"] * 0.3, y), (x + plot["width"] * 0.5, y + 5), (x + plot["width"] * 0.6, y + 10))
    ends = (
        f"{found('.st-key-card-course [role=slider], .st-key-card-course input[type=range]')}.map((end) => end.value)"
    )
    page.wait_for(ends, ["10", "22"])


def test_a_bundle_and_a_report_open_from_the_disk(page: FirefoxPage, tmp_path: Path) -> None:
    site, report = tmp_path / "site", tmp_path / "report.html"
    specscope("view", str(EAGER), str(FAULTY), "--bundle", str(site))
    specscope("report", str(EAGER), str(FAULTY), "--out", str(report))
    page.go((site / "index.html").as_uri())
    page.wait_for(f"{found('svg.ss-tree')}.length > 0")
    before = page.evaluate("location.hash")
    page.press("ArrowRight")
    page.wait_for(f"location.hash !== {before!r}")
    page.go(report.as_uri())
    page.wait_for(f"{found('svg.ss-tree')}.length > 1")
