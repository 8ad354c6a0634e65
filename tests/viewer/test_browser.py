"""End to end, in a real browser: keys move through the steps, clicks on the strip too, and token text runs nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
COMMAND = Path(sysconfig.get_path("scripts")) / "specscope"

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser")


@pytest.fixture
def address(pair_of_traces: tuple[Path, Path]) -> Iterator[str]:
    """Where a viewer of two traces with hostile texts answers."""
    process = subprocess.Popen(
        [str(COMMAND), "view", "--no-browser", *map(str, pair_of_traces)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def page() -> Iterator[Page]:
    """A page 1280 wide."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def drawing(page: Page, words: str) -> None:
    """Waits until a drawing with that name is on the page."""
    expect(page.locator(f"svg[aria-label*='{words}']").first).to_be_visible(timeout=30_000)


def ready(page: Page) -> None:
    """Waits until keys are heard: Streamlit loads its buttons apart from the drawings, and may still be at work."""
    expect(page.get_by_role("button", name="Next")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=30_000)


def test_the_viewer_in_a_browser(address: str, page: Page, record_property: Callable[[str, object], None]) -> None:
    outside: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if not _is_local(request.url, address) else None)
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(f"{address}/?page=step&trace=0&turn=0&step=0")
    drawing(page, "draft tree of step 0")
    ready(page)
    page.keyboard.press("ArrowRight")
    drawing(page, "draft tree of step 1")
    expect(page).to_have_url(re.compile("step=1"), timeout=30_000)
    page.keyboard.press("ArrowRight")
    drawing(page, "draft tree of step 2")
    page.keyboard.press("ArrowLeft")
    drawing(page, "draft tree of step 1")
    page.locator("g.step[data-pick='0'] rect.hit").click()
    drawing(page, "draft tree of step 0")

    expect(page.locator("g.node title", has_text="<script>document.title").first).to_have_count(1)
    expect(page.locator(".ss-value", has_text="<script>document.title = 'pwned'</script>")).to_be_visible()
    assert page.evaluate("document.querySelectorAll('.drawing script, .ss-value script, .stHtml img').length") == 0

    page.goto(f"{address}/?page=diff")
    drawing(page, "draft tree of step 1")
    expect(page.get_by_text("DIFFERENT in phase tensors: positions")).to_be_visible()
    assert page.title() == "SpecScope"
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width
    record_property("outside", json.dumps(outside))
    assert not outside
    assert not errors


def test_a_step_asked_for_while_the_first_is_still_drawn(address: str, page: Page) -> None:
    page.goto(f"{address}/?page=step&trace=0&turn=0&step=0")
    page.get_by_role("button", name="Next").click(timeout=30_000)
    expect(page).to_have_url(re.compile("step=1"), timeout=30_000)
    ready(page)
    drawing(page, "draft tree of step 1")
    expect(page.locator("[data-testid=stException]")).to_have_count(0)


def _is_local(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:"))
