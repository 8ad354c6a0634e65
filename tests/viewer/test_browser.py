"""End to end, in a real browser: keys and clicks move and select, links keep the view, and no text of a trace runs.

What is on the pages is tested without a browser, in the tests of each page; here is what only a browser can tell.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, Request, expect, sync_playwright

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
#: What stands on each page once it is drawn: a board comes later than the page says that it is at rest.
DRAWN = {"runs": "table", "step": ".ss-tree", "diff": ".ss-tree", "metrics": ".main-svg", "health": "table"}
WAIT = 30_000  # milliseconds

#: What the page holds, shadow trees included: elements that load or run, attributes that run, and the text.
LOOK = """
() => {
  const found = { forbidden: [], attributes: [], text: "" };
  const walk = (root) => {
    for (const element of root.querySelectorAll("*")) {
      const name = element.tagName.toLowerCase();
      if (["script", "iframe", "object", "embed", "img", "image", "base", "form", "foreignobject"].includes(name)) {
        found.forbidden.push(element.outerHTML.slice(0, 200));
      }
      for (const { name: attribute, value } of element.attributes) {
        if (attribute.startsWith("on") || /^\\s*javascript:/i.test(value)) {
          found.attributes.push(`${name} ${attribute}=${value}`);
        }
      }
      if (element.shadowRoot) {
        walk(element.shadowRoot);
      }
    }
    for (const child of root.children) {
      found.text += child.tagName === "STYLE" ? "" : child.textContent;
    }
  };
  walk(document.querySelector("[data-testid=stMain]"));
  return found;
}
"""

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser")


@pytest.fixture(scope="module")
def address(hostile_folder: Path) -> Iterator[str]:
    """Where a viewer of the hostile traces answers: two files, and the folder that they are in."""
    files = [str(hostile_folder / name) for name in ("sound.jsonl", "wrong.jsonl")]
    process = subprocess.Popen(
        [str(COMMAND), "view", "--no-browser", *files, str(hostile_folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page 1280 wide, on which nothing may go wrong: no dialog, no error, no request to anywhere else."""
    trouble: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:")):
            trouble.append(request.url)

    def opened(dialog: Dialog) -> None:
        trouble.append(dialog.message)
        dialog.dismiss()

    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("request", asked)
        page.on("dialog", opened)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        yield page
        title = page.title()
    assert trouble == []
    assert title == "SpecScope"


def open_page(page: Page, address: str, /, **query: str) -> None:
    """Follows a link, and waits until the page is whole and hears keys."""
    link = "&".join(f"{name}={value}" for name, value in query.items())
    page.goto(f"{address}/?{link}")
    expect(page.locator(".ss-brand")).to_be_visible(timeout=WAIT)
    settle(page)


def settle(page: Page) -> None:
    """Waits until Streamlit is at rest."""
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=WAIT)
    expect(page.locator("[data-stale=true]")).to_have_count(0, timeout=WAIT)
    expect(page.locator("[data-testid=stException]")).to_have_count(0)


def tree(page: Page, step: int) -> Locator:
    """The tree of a step, of which there must be one."""
    found = page.locator(f"svg.ss-tree[aria-label*='draft tree of step {step}']").first
    expect(found).to_be_visible(timeout=WAIT)
    return found


def at(page: Page, step: int) -> None:
    """Waits until the tree of that step is drawn, and the address bar says so."""
    tree(page, step)
    expect(page).to_have_url(re.compile(rf"[?&]step={step}(&|$)"), timeout=WAIT)


def test_keys_move_and_the_address_follows(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="wrong.jsonl")
    at(page, 0)
    for key, step in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("Home", 0),
        ("End", 2),
        ("p", 1),
        ("Home", 0),
        ("n", 1),
    ):
        page.keyboard.press(key)
        at(page, step)
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile("turn=1"), timeout=WAIT)
    at(page, 1)


def test_back_and_forward_lead_through_what_was_seen(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="wrong.jsonl")
    at(page, 0)
    for step in (1, 2):
        page.keyboard.press("ArrowRight")
        at(page, step)
        settle(page)
    page.go_back()
    at(page, 1)
    settle(page)
    page.go_forward()
    at(page, 2)
    settle(page)
    page.keyboard.press("ArrowLeft")
    at(page, 1)


def test_keys_are_heard_after_choosing_from_a_list(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="wrong.jsonl")
    at(page, 0)
    page.get_by_role("combobox").nth(1).click()
    page.get_by_role("option").nth(1).click()
    expect(page).to_have_url(re.compile("turn=1"), timeout=WAIT)
    settle(page)
    page.keyboard.press("ArrowRight")
    at(page, 1)


def test_a_step_asked_for_while_the_first_is_still_drawn(address: str, page: Page) -> None:
    page.goto(f"{address}/?page=step&run=wrong.jsonl")
    page.get_by_role("button", name="Next", exact=False).first.click(timeout=WAIT)
    at(page, 1)
    settle(page)


def test_the_strip_leads_to_a_step(address: str, page: Page) -> None:
    for name in ("step", "diff"):
        open_page(page, address, page=name, turn="0", step="0")
        tree(page, 0)
        page.locator("svg.ss-strip [data-do='step:2'] .hit").click()
        at(page, 2)


def test_a_node_is_selected_in_all_drawings_and_a_link_keeps_it(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="sound.jsonl")
    node = tree(page, 0).locator("[data-node='3']")
    panel = page.locator(".ss-panel")
    empty = panel.text_content()
    node.hover()
    expect(panel).not_to_have_text(empty or "", timeout=WAIT)
    expect(page.locator("tr[data-node='3']")).to_have_class(re.compile("hovered"))
    expect(page.locator(".ss-mask .row").first).to_have_attribute("visibility", "visible")
    node.click()
    expect(page).to_have_url(re.compile("node=3"), timeout=WAIT)
    for element in (tree(page, 0).locator("[data-node='3']"), page.locator("tr[data-node='3']")):
        expect(element).to_have_class(re.compile("picked"), timeout=WAIT)
    link = page.url
    page.reload()
    expect(tree(page, 0).locator("[data-node='3']")).to_have_class(re.compile("picked"), timeout=WAIT)
    settle(page)
    assert page.url == link


def test_the_raw_record_is_copied(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="sound.jsonl")
    tree(page, 0)
    page.locator(".ss-raw summary").first.click()
    button = page.locator(".ss-raw [data-copy]").first
    button.click()
    expect(button).to_have_text("Copied")
    assert '"committed_after"' in page.evaluate("navigator.clipboard.readText()")


@pytest.mark.parametrize("name", list(DRAWN))
def test_texts_are_shown_as_they_are_and_nothing_runs(address: str, page: Page, name: str) -> None:
    open_page(page, address, page=name, run="sound.jsonl", turn="0", step="1", node="a1" if name == "diff" else "1")
    expect(page.locator(f"[data-testid=stMain] {DRAWN[name]}").first).to_be_visible(timeout=WAIT)
    found = page.evaluate(LOOK)
    assert found["forbidden"] == []
    assert found["attributes"] == []
    assert found["text"].strip()
    for hidden in "\u202e\u2028\x1b\x00":
        assert hidden not in found["text"]
    if name in ("step", "diff"):
        assert "<script>document.title = 'pwned'</script>" in found["text"]
        assert "$x^2$ `code` **bold** [link](javascript:alert(1))" in found["text"]
        inspector = page.locator(".ss-board")
        inspector.evaluate(
            "(board) => { board.append(document.createElement('img')); board.setAttribute('onload', ''); }"
        )
        found = page.evaluate(LOOK)
        assert (len(found["forbidden"]), len(found["attributes"])) == (1, 1), "the look sees into shadow trees"
    if name == "runs":
        assert "<img src=x onerror=alert(1)>" in found["text"]
    for width in (1920, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width


def test_a_trace_that_is_no_text_is_an_error_in_words(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="half.jsonl")
    expect(page.get_by_text("not JSON")).to_be_visible(timeout=WAIT)


@pytest.mark.parametrize("run", ["../../etc/passwd", "%2Fetc%2Fpasswd", "<script>alert(1)</script>"])
def test_no_path_comes_from_a_link(address: str, page: Page, run: str) -> None:
    open_page(page, address, page="health", run=run, node="<script>", turn="-1", step="9" * 30)
    expect(page.locator(f"[data-testid=stMain] {DRAWN['health']}").first).to_be_visible(timeout=WAIT)
    found = page.evaluate(LOOK)
    assert found["forbidden"] == found["attributes"] == []
    assert "root:" not in found["text"]
    assert "passwd" not in page.url
    assert "script" not in page.url


def test_the_dark_look_is_dark(address: str, browser: Browser) -> None:
    with browser.new_context(color_scheme="dark", viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        open_page(page, address, page="step")
        tree(page, 0)
        for selector in ("[data-testid=stAppViewContainer]", ".ss-box", ".ss-tree [data-node='5'] .box"):
            assert brightness(page.locator(selector).first) < 90, selector
        assert brightness(page.locator(".ss-tree [data-node='5'] text").first) > 130


def brightness(element: Locator) -> float:
    """Of what fills the element: 0 is black, 255 white."""
    found = element.evaluate(
        "(e) => { const s = getComputedStyle(e); return e.closest('svg') ? s.fill : s.backgroundColor; }"
    )
    numbers = [float(number) for number in re.findall(r"[\d.]+", found)[:3]]
    return sum(numbers) / 3
