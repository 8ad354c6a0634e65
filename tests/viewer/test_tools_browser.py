"""In a real browser: the palette of commands, notes as they are written, colours of nodes, a server that ended."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PageTimeout
from support.browser import BROWSER, WAIT
from support.traces import EAGER, FAULTY, FUSED
from support.viewing import Running, viewer

from specscope.tracer.files.notes import NotedStep, read_notes
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.screens.scripts import chart_script

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH: the viewer is not seen in a browser")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the sample traces: notes are written beside them."""
    folder = tmp_path_factory.mktemp("tools")
    for path in (EAGER, FAULTY, FUSED):
        (folder / path.name).write_bytes(path.read_bytes())
    for at in range(6):
        (folder / f"further-{at}.jsonl").write_bytes(FUSED.read_bytes())
    return folder


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Running]:
    with viewer(folder / EAGER.name, folder / FAULTY.name, folder) as running:
        yield running


def open_page(page: Page, running: Running, query: str, *, ready: str = "svg.ss-tree") -> None:
    page.goto(f"{running.address}/?{query}")
    expect(page.locator(ready).first).to_be_visible(timeout=WAIT)
    settle(page)


def settle(page: Page) -> None:
    """Waits until Streamlit is at rest."""
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=WAIT)
    expect(page.locator("[data-stale=true]")).to_have_count(0, timeout=WAIT)


def test_a_line_of_the_cache_is_opened_by_keyboard(page: Page, serving: Running) -> None:
    open_page(page, serving, f"page=step&run={FUSED.name}&turn=1&step=5")
    page.get_by_role("button", name="Show the cache over the last steps").click()
    line = page.get_by_role("link", name=re.compile("step 2: [0-9]+ → [0-9]+ rows committed"))
    expect(line).to_be_visible(timeout=WAIT)
    settle(page)
    line.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("turn=1&step=2"), timeout=WAIT)
    expect(page.locator("svg.ss-tree[aria-label*='draft tree of step 2,']")).to_be_visible(timeout=WAIT)


def test_what_is_typed_after_the_key_that_finds_is_looked_for(page: Page, serving: Running) -> None:
    open_page(page, serving, f"page=step&run={FUSED.name}&turn=1&step=0")
    page.keyboard.press("/")
    field = page.get_by_label("Find", exact=True)
    expect(field).to_be_focused(timeout=WAIT)
    page.keyboard.type("accepted:0")
    expect(page.get_by_role("heading", name="2 steps fit")).to_be_visible(timeout=WAIT)


def test_steps_that_come_next_are_whole_where_they_were_built_ahead(page: Page, serving: Running) -> None:
    """Forward, back and forward again: what a board's elements are given is there once."""
    open_page(page, serving, f"page=step&run={FUSED.name}&turn=1&step=0")
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowRight", 2), ("ArrowRight", 3)):
        page.keyboard.press(key)
        tree = page.locator(f"svg.ss-tree[aria-label*='draft tree of step {step},']")
        expect(tree).to_be_visible(timeout=WAIT)
        page.wait_for_timeout(300)  # the next ones are built
        expect(page.get_by_role("button", name="Save Draft tree as SVG")).to_have_count(1)
        assert tree.get_by_role("treeitem").count() > 1
        expect(page.locator("svg.ss-mask")).to_have_attribute(
            "aria-label", re.compile("^((?!move).)*move((?!move).)*$")
        )
        assert page.locator("[data-node] > title").count() == 0
        tree.get_by_role("treeitem").nth(1).focus()
        expect(page.locator(".ss-panel")).to_contain_text("depth 1")
        page.keyboard.press("Escape")


def open_palette(page: Page) -> Locator:
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Command, or the number of a step")
    expect(field).to_be_focused()
    return field


def test_the_palette_does_what_a_click_would_and_goes_to_places(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=step&run=fused.jsonl&turn=0&step=0")
    open_palette(page)
    page.keyboard.type("2/5")
    expect(page.get_by_role("listbox").get_by_role("option").first).to_have_text("Go to turn 2, step 5")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("turn=2&step=5"), timeout=WAIT)
    open_palette(page)
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("turn=2&step=3"), timeout=WAIT)
    field = open_palette(page)
    page.keyboard.press("Escape")
    expect(field).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("turn=2&step=4"), timeout=WAIT)
    open_palette(page)
    page.keyboard.type("page text")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("page=text"), timeout=WAIT)
    expect(page.locator(".ss-text").first).to_be_visible(timeout=WAIT)


def test_the_verdict_and_the_report_are_saved_by_buttons(serving: Running, page: Page, tmp_path: Path) -> None:
    open_page(page, serving, "page=diff")
    for what, name in (("verdict as JSON", "verdict.json"), ("report as HTML", "html")):
        with page.expect_download(timeout=WAIT) as download:
            page.get_by_role("button", name=f"Save the {what}").click()
        download.value.save_as(tmp_path / name)
        assert download.value.suggested_filename == f"eager-fused-F16.{name}"
    assert json.loads((tmp_path / "verdict.json").read_bytes())["verdict"] == "different"
    page.goto((tmp_path / "html").rename(tmp_path / "report.html").as_uri())
    expect(page.get_by_text("DIFFERENT").first).to_be_visible()
    expect(page.locator("svg.ss-tree").first).to_be_visible()


def test_the_link_is_copied_by_a_button(serving: Running, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, serving, "page=diff&turn=1&step=2")
    button = page.get_by_role("button", name="Copy the link to this place")
    button.click()
    expect(button).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    expect(button).to_have_text("Copy the link", timeout=WAIT)


def test_a_note_is_written_saved_and_not_lost_while_it_is_not(serving: Running, page: Page, folder: Path) -> None:
    open_page(page, serving, "page=step&run=fused.jsonl&turn=1&step=0")
    field = page.get_by_label("Note on step 0")
    field.press_sequentially("half a thought, then n and p")
    expect(page).to_have_url(re.compile("turn=1&step=0"))
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Note on step 1")).to_have_value("", timeout=WAIT)
    page.keyboard.press("ArrowLeft")
    expect(field).to_have_value("half a thought, then n and p", timeout=WAIT)
    expect(page.locator(".ss-noted [role=status]")).to_have_text("not saved yet")
    page.get_by_role("button", name="Save note").click()
    expect(page.locator(".ss-strip .noted")).to_have_count(1, timeout=WAIT)
    expect(page.locator(".ss-noted [role=status]")).to_have_text("")
    with TraceReader(folder / "fused.jsonl") as reader:
        notes = read_notes(folder / "fused.jsonl", reader.manifest.run_id)
    assert notes[NotedStep(1, 0)].text == "half a thought, then n and p"
    expect(page).to_have_url(re.compile("turn=1&step=0"), timeout=WAIT)  # shown before the page was there
    page.reload()
    expect(page.get_by_label("Note on step 0")).to_have_value("half a thought, then n and p", timeout=WAIT)


def test_nodes_are_coloured_and_stay_so_from_step_to_step(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=step&run=fused.jsonl&turn=2&step=12")
    fills = "(nodes) => nodes.map((node) => getComputedStyle(node).fill)"
    boxes = page.locator("svg.ss-tree .node:not(.on) .box")
    assert len(set(boxes.evaluate_all(fills))) == 1
    expect(page.locator("svg.ss-tree g.ghost")).to_have_count(1)
    page.get_by_label("Colour nodes by").select_option("d")
    expect(page.locator("svg.ss-tree")).to_have_class(re.compile("shaded"))
    assert len(set(boxes.evaluate_all(fills))) > 3
    expect(page.locator(".ss-shades span")).to_have_text("pale: 0; full: 1")
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("step=13"), timeout=WAIT)
    expect(page.locator("svg.ss-tree")).to_have_class(re.compile("shaded"))
    expect(page.get_by_label("Colour nodes by")).to_have_value("d")
    page.get_by_label("Colour nodes by").select_option("")
    expect(page.locator("svg.ss-tree")).not_to_have_class(re.compile("shaded"))


def test_slots_are_filtered_by_token_and_outcome_from_step_to_step(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=step&run=fused.jsonl&turn=2&step=12")
    rows = page.locator(".ss-card-slots tbody tr")
    shown = page.locator(".ss-card-slots tbody tr:not([hidden])")
    most, accepted = rows.count(), page.locator("[data-state~=accepted]").count()
    assert 0 < accepted < most - 1
    page.get_by_label("Outcome of slots").select_option("accepted")
    expect(shown).to_have_count(accepted)
    expect(page.locator(".ss-filter [role=status]")).to_have_text(f"{accepted} of {most} slots")
    shown.first.focus()
    for _ in range(most):
        page.keyboard.press("ArrowDown")
    expect(shown.last).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("step=13"), timeout=WAIT)
    expect(page.get_by_label("Outcome of slots")).to_have_value("accepted")
    page.get_by_label("Outcome of slots").select_option("")
    text = rows.nth(3).locator(".ss-token").text_content() or ""
    page.get_by_label("Token of slots").press_sequentially(text.upper())
    expect(page).to_have_url(re.compile("step=13"))
    expect(rows.nth(3)).to_be_visible()
    assert all(text.lower() in words.lower() for words in shown.locator(".ss-token").all_text_contents())
    page.get_by_label("Token of slots").fill("no such token")
    expect(shown).to_have_count(0)


def test_the_cache_over_steps_leads_to_them(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=step&run=fused.jsonl&turn=2&step=8")
    page.get_by_role("button", name="Show the cache over the last steps").click()
    lines = page.locator(".ss-history .line")
    expect(lines).to_have_count(9, timeout=WAIT)
    lines.nth(4).locator("text.step").click()
    expect(page).to_have_url(re.compile("step=4"), timeout=WAIT)
    expect(lines).to_have_count(5, timeout=WAIT)


def test_the_list_is_filtered_while_one_types_and_sorted_by_its_heads(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=runs", ready="table")
    names = page.locator(".ss-name-of-run")
    expect(names).to_have_count(9)
    edges = page.locator(".ss-runs td:first-child").first.evaluate(
        "(cell) => [...cell.children].map((child) => child.getBoundingClientRect().left)"
    )
    assert max(edges) - min(edges) < 1, "a name stands above its date"
    page.get_by_label("Filter").press_sequentially("f16")
    expect(names).to_have_count(1, timeout=WAIT)
    page.get_by_label("Filter").fill("")
    expect(names).to_have_count(9, timeout=WAIT)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(names.first).to_have_text("eager.jsonl", timeout=WAIT)
    page.get_by_role("button", name="Run ↑", exact=True).click()
    expect(names.first).to_have_text("fused.jsonl", timeout=WAIT)


def saved(page: Page, button: str, folder: Path) -> bytes:
    """What a button saves."""
    with page.expect_download(timeout=WAIT) as download:
        page.get_by_role("button", name=button, exact=True).click()
    download.value.save_as(folder / "saved")
    return (folder / "saved").read_bytes()


def test_charts_are_saved_and_lead_to_their_steps(serving: Running, page: Page, tmp_path: Path) -> None:
    open_page(page, serving, "page=metrics&run=fused.jsonl", ready=".st-key-card-lengths .bars .point")
    drawing = ElementTree.fromstring(saved(page, "Save Accepted length as SVG", tmp_path))
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(part.itertext()) for part in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"share of steps", "drafted nodes accepted in a step", "0%"} <= texts
    assert saved(page, "Save Accepted length as PNG", tmp_path).startswith(b"\x89PNG")
    numbers = saved(page, "Save Accepted length as CSV", tmp_path).decode()
    assert numbers.startswith("curve,drafted nodes accepted in a step,share of steps")
    timings = json.loads(saved(page, "Download timings for Perfetto", tmp_path))
    assert {"prefill", "verify"} <= {event["name"] for event in timings["traceEvents"]}
    page.locator(".st-key-card-lengths .nsewdrag").hover()
    page.locator(".st-key-card-lengths .bars .point").nth(2).click(force=True)
    expect(page).to_have_url(re.compile("page=find.*find=accepted%3A2"), timeout=WAIT)
    expect(page.get_by_label("Find", exact=True)).to_have_value("accepted:2", timeout=WAIT)
    expect(page.locator(".ss-card-found")).to_be_visible(timeout=WAIT)
    page.go_back()
    card = page.locator(".st-key-card-prompts")
    card.get_by_text("Numbers").click(timeout=WAIT)
    card.get_by_role("link", name="steps at 2 of fused.jsonl").press("Enter")
    expect(page).to_have_url(re.compile("page=step.*turn=2&step=0"), timeout=WAIT)


def test_a_drawing_is_saved_as_a_picture(serving: Running, page: Page, tmp_path: Path) -> None:
    open_page(page, serving, "page=step&run=fused.jsonl&turn=1&step=0")
    assert saved(page, "Save Draft tree as PNG", tmp_path).startswith(b"\x89PNG")


def test_runs_are_hidden_for_as_long_as_one_wants(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=runs", ready="table")
    names = page.locator(".ss-name-of-run")
    page.get_by_role("button", name="Hide eager.jsonl").click()
    expect(names).to_have_count(8, timeout=WAIT)
    expect(page.get_by_text("What differs between these 8 runs")).to_be_visible()
    expect(page).to_have_url(re.compile("hidden="), timeout=WAIT)
    page.reload()
    expect(names).to_have_count(8, timeout=WAIT)
    page.get_by_text("1 hidden run", exact=False).first.click()
    page.get_by_role("button", name="Show eager.jsonl").click()
    expect(names).to_have_count(9, timeout=WAIT)


def test_a_server_that_ended_is_said_to_have_with_the_command(page: Page) -> None:
    with viewer(FUSED) as running:
        open_page(page, running, "page=step")
    words = "getComputedStyle(document.querySelector('[data-testid=stApp]'), '::before').content"
    page.wait_for_function(f"{words}.includes('specscope view')", timeout=WAIT)
    expect(page.get_by_text("streamlit run")).to_be_hidden()
    expect(page.get_by_text("connected to the internet")).to_be_hidden()


def test_a_drag_across_a_chart_zooms_and_a_click_still_leads_to_its_step(serving: Running, page: Page) -> None:
    open_page(page, serving, "page=metrics&run=fused.jsonl", ready=".st-key-card-course .main-svg")
    card = page.locator(".st-key-card-course")
    card.scroll_into_view_if_needed()
    settle(page)
    ends = card.get_by_role("slider")

    def shows(first: int, last: int) -> None:
        expect(ends.first).to_have_value(str(first), timeout=WAIT)
        expect(ends.last).to_have_value(str(last), timeout=WAIT)
        settle(page)

    def drag() -> None:
        plot = card.locator(".nsewdrag").bounding_box()
        assert plot is not None
        page.mouse.move(plot["x"] + plot["width"] * 0.3, plot["y"] + 60)
        page.mouse.down()
        page.mouse.move(plot["x"] + plot["width"] * 0.6, plot["y"] + 70, steps=6)
        page.mouse.up()

    shows(0, 36)
    drag()
    shows(10, 22)
    ends.first.focus()
    page.keyboard.press("ArrowRight")
    shows(11, 22)
    card.get_by_role("button", name="All").click()
    shows(0, 36)
    drag()
    shows(10, 22)
    point = card.locator(".scatterlayer .points path").first.bounding_box()
    assert point is not None
    x, y = point["x"] + point["width"] / 2, point["y"] + point["height"] / 2
    step = re.compile(r"page=step&run=fused\.jsonl.*&turn=1&step=0")
    for _ in range(3):  # Plotly forgets a click that falls into one of its redraws, as on a busy machine
        page.mouse.move(x - 6, y)
        page.mouse.move(x, y, steps=3)
        expect(card.locator(".hoverlayer text").first).to_be_visible(timeout=WAIT)
        page.mouse.click(x, y, delay=60)
        with contextlib.suppress(PageTimeout):
            page.wait_for_url(step, timeout=WAIT / 3)
            break
    expect(page).to_have_url(step)


#: A card whose tools are mounted twice, the first of them being gone, as a page does it; and what a drag then tells.
MOUNTED_TWICE = """async (script) => {
  const { default: mount } = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  document.body.innerHTML = '<div class="st-key-card-course"><div class="tools"></div><div class="places"></div></div>';
  const [tools, places] = document.querySelectorAll(".tools, .places");
  const told = [];
  const data = new TextEncoder().encode(JSON.stringify({ name: "n", title: "t", csv: "" }));
  const drags = [];
  const show = (name) => {
    tools.innerHTML = '<div class="chart-tools"></div>';
    for (const time of [1, 2]) {  // each run of the page says anew whom to tell
      const setTriggerValue = (what, ends) => told.push(`${name}${time} ${what} ${ends}`);
      mount({ parentElement: tools, data, setTriggerValue });
    }
  };
  const drag = (from) => {
    const plot = places.querySelector(".js-plotly-plot");
    plot.on ??= (_, hear) => drags.push(hear);
    plot.dispatchEvent(new Event("pointerdown", { bubbles: true }));
    drags.forEach((hear) => hear({ "xaxis.range[0]": from, "xaxis.range[1]": 9 }));
  };
  places.innerHTML = '<div class="js-plotly-plot"></div>';
  show("first");
  drag(1);
  show("second");
  drag(2);
  drags.length = 0;
  places.innerHTML = '<div class="js-plotly-plot"></div>';
  drag(3);
  return told;
}"""


def test_a_drag_is_told_once_to_the_tools_that_are_there(page: Page) -> None:
    zooms = page.evaluate(MOUNTED_TWICE, chart_script())
    assert zooms == ["first2 zoomed 1 9", "second2 zoomed 2 9", "second2 zoomed 3 9"]
