"""No page, report or bundle has what axe calls serious or critical, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support.browser import BROWSER, FLAGS, WAIT
from support.traces import EAGER, FAULTY, FUSED
from support.viewing import viewer

from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.bundle.write import write_bundle
from specscope.viewer.report.pair_report import PairTexts, pair_report

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser"),
    pytest.mark.slow,
]
PIPELINE = Path(__file__).parents[1] / "tracer" / "traces" / "pipeline.jsonl"
PAIR = f"baseline={EAGER.name}&candidate={FAULTY.name}"
#: What each page is opened with, and what there is once it is drawn.
LINKS = {
    "runs": ("page=runs", ".ss-table"),
    "step": (f"page=step&run={FAULTY.name}&turn=1&step=0&{PAIR}", "svg.ss-tree"),
    "text": (f"page=text&run={FUSED.name}", ".ss-board"),
    "find": (f"page=find&run={FUSED.name}", ".ss-cells"),
    "timeline": (f"page=timeline&run={PIPELINE.name}", ".ss-flow"),
    "diff": (f"page=diff&{PAIR}", "svg.ss-tree"),
    "metrics": (f"page=metrics&run={FUSED.name}", ".js-plotly-plot"),
    "health": (f"page=health&run={FAULTY.name}", ".ss-table"),
}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


class Seen(NamedTuple):
    """Something that is looked at."""

    link: str
    drawn: str  # a selector of what there is then


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=BROWSER, args=FLAGS) as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with viewer(EAGER, FUSED, FAULTY, PIPELINE) as running:
        yield running.address


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Seen]:
    """A report and a bundle."""
    texts = PairTexts(TokenTexts(None), TokenTexts(None), TokenTexts(None))
    report = tmp_path / "report.html"
    report.write_text(pair_report(EAGER, FAULTY, DiffOptions(), most_roots=2, texts=texts).page, encoding="utf-8")
    write_bundle(tmp_path / "site", [EAGER, FAULTY])
    page = tmp_path / "site" / "index.html"
    return {"report": Seen(report.as_uri(), "svg.ss-tree"), "bundle": Seen(page.as_uri(), "svg.ss-tree")}


def violations(browser: Browser, seen: Seen, scheme: Scheme, change: Callable[[Page], Any] | None = None) -> list[str]:
    """What axe calls serious or critical, once nothing fades any more."""
    with browser.new_context(viewport={"width": 1280, "height": 1400}, color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(seen.link)
        expect(page.locator(seen.drawn).first).to_be_visible(timeout=WAIT)
        if not seen.link.startswith("file:"):
            at_rest = page.locator("[data-testid=stApp][data-test-script-state=notRunning]")
            expect(at_rest).to_be_visible(timeout=WAIT)
            expect(page.locator("[data-stale=true], [data-testid=stSkeleton]")).to_have_count(0, timeout=WAIT)
        page.wait_for_function("document.getAnimations().every((one) => one.playState !== 'running')", timeout=WAIT)
        if change is not None:
            change(page)
        broken = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in broken
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", list(LINKS))
def test_nothing_serious_on_a_page(browser: Browser, address: str, name: str, scheme: Scheme) -> None:
    query, drawn = LINKS[name]
    assert violations(browser, Seen(f"{address}/?{query}", drawn), scheme) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_serious_in_a_report_and_in_a_bundle(browser: Browser, files: dict[str, Seen], scheme: Scheme) -> None:
    assert {name: violations(browser, seen, scheme) for name, seen in files.items()} == {"report": [], "bundle": []}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_serious_in_drawings_that_are_asked_for(browser: Browser, address: str, scheme: Scheme) -> None:
    """The cache over the last steps, and phases over time."""

    def ask(page: Page) -> None:
        for words, drawn in (("Show the cache over the last steps", "ss-history"), ("Show the phases", "ss-phases")):
            page.get_by_role("button", name=words).click()
            expect(page.locator(f"svg.{drawn} [role=link]").first).to_be_visible(timeout=WAIT)

    seen = Seen(f"{address}/?page=step&run={FAULTY.name}&turn=1&step=5", "svg.ss-tree")
    assert violations(browser, seen, scheme, ask) == []


def test_what_cannot_be_read_would_be_found(browser: Browser, address: str) -> None:
    """That axe looks into the board, and at its colours."""
    seen = Seen(f"{address}/?{LINKS['health'][0]}", LINKS["health"][1])
    faint = "document.documentElement.style.setProperty('--ss-muted', '#ccc')"
    broken = violations(browser, seen, "light", lambda page: page.evaluate(faint))
    assert any("color-contrast" in line and "stBidiComponent" in line for line in broken)
