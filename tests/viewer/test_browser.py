"""End to end, in a real browser: keys and clicks move and select, links keep the view, and no text of a trace runs.

What is on the pages is tested without a browser, in the tests of each page; here is what only a browser can tell.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, Request, expect, sync_playwright
from support.browser import BROWSER, FLAGS, LOOK, WAIT
from support.reverse_proxy import proxied
from support.viewing import viewer

#: What stands on each page once it is drawn: a board comes later than the page says that it is at rest.
DRAWN = {
    "runs": "table",
    "step": ".ss-tree",
    "text": ".ss-text",
    "find": ".ss-turns",
    "diff": ".ss-tree",
    "metrics": ".main-svg",
    "health": "table",
}
HOSTILE_IMAGE = "</svg><img src=x onerror=\"document.title='pwned'\">"
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser")


@pytest.fixture(scope="module")
def address(hostile_folder: Path) -> Iterator[str]:
    """Where a viewer of the hostile traces answers: two files, and the folder that they are in."""
    files = [hostile_folder / name for name in ("sound.jsonl", "wrong.jsonl")]
    with viewer(*files, hostile_folder) as running:
        yield running.address


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
    assert title.endswith(" · SpecScope")
    assert "pwned" not in title


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
    """Waits until the tree of that step is drawn, and the address bar and the tab say so."""
    tree(page, step)
    expect(page).to_have_title(re.compile(rf"\d+/{step} .* · SpecScope$"), timeout=WAIT)
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


def test_a_held_key_loses_no_step_and_goes_on_to_the_next_turn(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="long.jsonl")
    at(page, 0)
    for _ in range(20):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(30)
    at(page, 20)
    settle(page)
    page.keyboard.press("End")
    at(page, 29)
    settle(page)
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("turn=1&step=0"), timeout=WAIT)
    at(page, 0)
    settle(page)
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("turn=0&step=29"), timeout=WAIT)
    keys = page.get_by_role("dialog", name="Keys")
    expect(keys).to_be_hidden()
    page.keyboard.press("?")
    expect(keys).to_be_visible()


#: Goes from the end of a turn to the next and back by keys, each pressed so long after the last has led on.
BACK_AND_FORTH = """async (pause) => {
  const wait = (time) => new Promise((then) => setTimeout(then, time));
  let lost = 0;
  for (let press = 0; press < 10; press += 1) {
    const before = document.title;
    const key = before.startsWith("1/0 ") ? "ArrowLeft" : "ArrowRight";
    document.dispatchEvent(new KeyboardEvent("keydown", { key }));
    for (let looks = 0; looks < 2000 && document.title === before; looks += 1) {
      await wait(1);
    }
    lost += document.title === before;
    await wait(pause);
  }
  return lost;
}"""


@pytest.mark.parametrize("pause", [0, 20, 60])
def test_a_key_is_not_lost_to_what_the_page_asks_for_by_itself(address: str, page: Page, pause: int) -> None:
    open_page(page, address, page="step", run="long.jsonl", turn="0", step="29")
    at(page, 29)
    page.wait_for_timeout(500)
    assert page.evaluate(BACK_AND_FORTH, pause) == 0


@pytest.mark.parametrize("name", ["step", "diff"])
def test_the_next_steps_are_sent_ahead_and_shown_at_once(address: str, page: Page, name: str) -> None:
    sent: list[str | bytes] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(frame)))
    open_page(page, address, page=name, turn="0", step="0")
    at(page, 0)
    deadline = page.evaluate("performance.now()") + WAIT
    while not any(b'"ahead": {"1"' in (frame if isinstance(frame, bytes) else frame.encode()) for frame in sent):
        assert page.evaluate("performance.now()") < deadline
        page.wait_for_timeout(50)
    settle(page)
    page.wait_for_timeout(300)
    title = page.locator("svg.ss-tree").first.evaluate(
        """async () => {
          document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
          const hosts = [...document.querySelectorAll("*")].filter((host) => host.shadowRoot);
          const trees = hosts.flatMap((host) => [...host.shadowRoot.querySelectorAll(".ss-tree")]);
          return trees[0].getAttribute("aria-label");
        }"""
    )
    assert "draft tree of step 1," in title, "shown before anything could be answered"
    at(page, 1)
    page.keyboard.press("ArrowLeft")
    at(page, 0)


@pytest.mark.parametrize("width", [960, 768])
def test_narrow_windows_scroll_drawings_and_not_the_page(address: str, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("step", "diff", "runs"):
        open_page(page, address, page=name, run="wrong.jsonl")
        expect(page.locator(f"[data-testid=stMain] {DRAWN[name]}").first).to_be_visible(timeout=WAIT)
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= width
        sizes = page.locator("svg.ss-tree text, svg.ss-strip text, svg.ss-ribbon text").evaluate_all(
            "(texts) => texts.map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"
        )
        assert all(size >= 10.9 for size in sizes), sorted(sizes)[:3]


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


def test_a_selection_is_not_undone_by_the_answer_to_the_one_before(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="sound.jsonl")
    tree(page, 0)
    page.locator(".inspector").first.evaluate(
        """(host) => {
          window.walked = [];
          const look = () => {
            const now = host.querySelector("tr.picked")?.dataset.node;
            if (now !== walked.at(-1)) walked.push(now);
          };
          new MutationObserver(look).observe(host, { subtree: true, childList: true, attributeFilter: ["class"] });
          for (const name of ["1", "2", "4", "3"]) host.querySelector(`tr[data-node='${name}'] td`).click();
        }"""
    )
    expect(page).to_have_url(re.compile("node=3"), timeout=WAIT)
    settle(page)
    assert page.evaluate("walked") == ["3"]


def test_a_held_key_opens_a_branch_once(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="deep.jsonl")
    closed = tree(page, 0).locator("[role=treeitem]:has(.branch:not(.open))").first
    name = closed.get_attribute("data-node")
    closed.evaluate(
        """(node) => {
          node.focus();
          for (const repeat of [false, true, true, true]) {
            node.dispatchEvent(new KeyboardEvent("keydown", { key: "+", repeat, bubbles: true, composed: true }));
          }
        }"""
    )
    page.keyboard.press("Escape")
    for key, step in (("ArrowRight", 1), ("ArrowLeft", 0)):  # asked for after all that the held key asks for
        page.keyboard.press(key)
        at(page, step)
    expect(tree(page, 0).locator(f"[data-node='{name}'] .branch.open")).to_have_count(1, timeout=WAIT)


def test_keys_lead_through_the_tree_and_say_where_they_are(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="sound.jsonl")
    root = tree(page, 0).locator("[role=treeitem]").first
    root.focus()
    for key, node, level in (
        ("ArrowRight", "1", "2"),
        ("ArrowDown", "2", "2"),
        ("ArrowRight", "5", "3"),
        ("ArrowLeft", "2", "2"),
    ):
        page.keyboard.press(key)
        item = tree(page, 0).locator(f"[role=treeitem][data-node='{node}']")
        expect(item).to_be_focused()
        expect(item).to_have_attribute("aria-level", level)
        expect(page.locator(".ss-panel .ss-node")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("node=2"), timeout=WAIT)
    expect(page.get_by_role("status").and_(page.locator(".live"))).to_contain_text("0/0 sound.jsonl")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    at(page, 1)


def test_space_plays_the_turn_to_its_end(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="sound.jsonl")
    at(page, 0)
    page.keyboard.press("Space")
    at(page, 2)
    page.wait_for_timeout(1500)
    at(page, 2)
    page.keyboard.press("Home")
    at(page, 0)
    page.wait_for_timeout(1500)
    at(page, 0)


def test_keys_lead_through_strip_mask_and_table(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="sound.jsonl")
    at(page, 0)
    slider = page.get_by_role("slider", name="accepted length of every step")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^step 0: 2 accepted"))
    slider.focus()
    page.keyboard.press("ArrowRight")
    at(page, 1)
    expect(slider).to_have_attribute("aria-valuenow", "1")
    expect(slider).to_be_focused()
    settle(page)
    mask = page.get_by_role("application", name="tree mask of 7 slots")
    mask.focus()
    for key, words in (("ArrowDown", "slot 0"), ("ArrowDown", "slot 1"), ("ArrowRight", "slot 1")):
        page.keyboard.press(key)
        expect(page.locator(".ss-cell")).to_contain_text(words)
    expect(page.locator("tr[data-node='1']")).to_have_class(re.compile("hovered"))
    at(page, 1)
    first = page.locator(".ss-card-slots tbody tr").first
    head = page.locator(".ss-card-slots th").first
    for direction, slot in (("ascending", "0"), ("descending", "6"), ("ascending", "0")):
        head.click()
        expect(head).to_have_attribute("aria-sort", direction)
        expect(first).to_have_attribute("data-node", slot)
    row = page.locator("tr[data-node='0']")
    row.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("tr[data-node='2']")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("node=2"), timeout=WAIT)


def test_drawings_and_tables_are_saved_as_they_are_seen(address: str, page: Page, tmp_path: Path) -> None:
    open_page(page, address, page="step", run="sound.jsonl")
    at(page, 0)
    files = {}
    for title, kind in (("Draft tree", "SVG"), ("Tree mask", "SVG"), ("Slots", "CSV")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {title} as {kind}").click()
        files[title] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[title])
    tree_ = ElementTree.parse(files["Draft tree"]).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    boxes = [rect for rect in tree_.iter(f"{svg}rect") if rect.get("class") == "box"]
    assert len(boxes) == 8, "seven nodes and the bonus token"
    assert len({(rect.get("style") or "").partition(";")[0] for rect in boxes}) > 1, "colours are in the file"
    assert files["Draft tree"].name == "0-0-sound.jsonl-draft-tree.svg"
    with files["Slots"].open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0][:3] == ["slot", "token", "id"]
    assert [row[1] for row in rows[2:4]] == ["<script>document.title = 'pwned'</script>", HOSTILE_IMAGE]


def test_a_turn_is_played_as_fast_as_one_wants(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="long.jsonl")
    at(page, 0)
    words = page.locator(".playing")
    expect(words).to_be_hidden()
    page.keyboard.press("Shift+Period")
    expect(words).to_be_hidden()
    page.keyboard.press("Space")
    expect(words).to_have_text(re.compile("Playing 1.1 steps per second"))
    for _ in range(9):
        page.keyboard.press("Shift+Period")  # with the key that keyboards need for it
    expect(words).to_have_text(re.compile("Playing 9.1 steps per second"))
    at(page, 29)
    expect(words).to_be_hidden()
    page.keyboard.press("Home")
    at(page, 0)
    settle(page)
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Comma")
    expect(words).to_have_text(re.compile("Playing 4.4 steps per second"))
    page.keyboard.press("Space")
    expect(words).to_be_hidden()


def test_a_slider_folds_what_is_unlikely_and_keeps_the_focus(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="deep.jsonl")
    nodes = tree(page, 0).locator("g.node")
    slider = page.get_by_role("slider", name="Fold")
    expect(slider).to_have_attribute("aria-valuetext", "as many as do not fit")
    slider.focus()
    counts = []
    for key, words in (
        ("Home", "as many as do not fit"),
        ("ArrowRight", "paths below p 0.0001"),
        ("End", "paths below p 0.3"),
    ):
        page.keyboard.press(key)
        expect(page.locator(".ss-below output")).to_have_text(words)
        expect(page.locator(f".ss-below input[value='{slider.input_value()}']")).to_have_count(1, timeout=WAIT)
        settle(page)
        expect(slider).to_be_focused()
        counts.append(nodes.count())
    assert counts[1] > counts[2]
    page.locator("svg.ss-tree").first.click(position={"x": 2, "y": 2})
    page.get_by_role("button", name="Show every node").click()
    expect(nodes).to_have_count(256, timeout=WAIT)
    expect(slider).to_have_value("0")


def test_a_large_tree_has_a_window_that_is_sized_and_moved(address: str, page: Page) -> None:
    open_page(page, address, page="step", run="deep.jsonl")
    nodes = tree(page, 0).locator("g.node")
    folded = nodes.count()
    tree(page, 0).locator(".branch.closed").first.click()
    expect(nodes).not_to_have_count(folded, timeout=WAIT)
    page.get_by_role("button", name="Show every node").click()
    expect(nodes).to_have_count(256, timeout=WAIT)
    frame = page.locator(".ss-scroll:has(> .ss-tree)")
    frame.evaluate("(frame) => frame.scrollTo(120, 60)")
    head = tree(page, 0).locator("text.head").first
    expect(head).to_be_visible()
    heads = frame.evaluate(
        "(f) => f.querySelector('.heads').getBoundingClientRect().top - f.getBoundingClientRect().top"
    )
    assert abs(heads) < 3, "the heads stay in sight"
    page.get_by_role("button", name="Fit").click()
    expect(frame).not_to_have_class(re.compile("moves"))
    page.keyboard.press("ArrowRight")
    at(page, 1)
    expect(frame).not_to_have_class(re.compile("moves"))
    page.get_by_role("button", name="100 %").click()
    expect(frame).to_have_class(re.compile("moves"))
    node = tree(page, 1).locator("[role=treeitem][data-node='100']")
    node.hover()
    expect(tree(page, 1).locator("[data-edge='87']")).to_have_class(re.compile("lit"))
    expect(tree(page, 1).locator("[data-edge='101']")).not_to_have_class(re.compile("lit"))


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
    if name in ("step", "text", "diff"):
        assert "<script>document.title = 'pwned'</script>" in found["text"]
        if name != "text":  # no token of the turn's own text
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


def test_behind_a_proxy_all_is_below_its_path_and_a_lost_connection_comes_back(address: str, browser: Browser) -> None:
    with (
        proxied(int(address.rpartition(":")[2])) as proxy,
        browser.new_context(viewport={"width": 1280, "height": 900}) as context,
    ):
        page = context.new_page()
        open_page(page, proxy.address, page="step", run="wrong.jsonl")
        at(page, 0)
        page.keyboard.press("ArrowRight")
        at(page, 1)
        settle(page)
        assert all(path.startswith("/proxy/") for path in proxy.requests), proxy.requests
        assert page.url.startswith(f"{proxy.address}/?")
        assert proxy.drop_web_sockets() >= 1
        page.wait_for_timeout(500)
        settle(page)
        page.keyboard.press("ArrowRight")
        at(page, 2)
        page.reload()
        at(page, 2)
        settle(page)
        proxy.drop_web_sockets()
        page.keyboard.press("Home")  # what it asks for is lost
        at(page, 0)
