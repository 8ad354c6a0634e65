"""Takes the README's pictures of the viewer and of the report, from the sample traces. Needs chromium.

python docs/screenshots.py                 the pictures in docs/images
python docs/screenshots.py --look FOLDER   every page, light and dark, 1280 and 1920 wide, as a whole
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
COMMAND = str(Path(sys.executable).with_name("specscope"))
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PAIR = ("eager.jsonl", "fused-F16.jsonl")
#: A pipelined run, with the tokenizer that gives its ids texts.
STAGES = ("../tests/tracer/traces/pipeline.jsonl", "--tokenizer", "../engine/demo_models/teacher")
WIDTHS = (1280, 1920)
WAIT = 60_000  # milliseconds

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@dataclass(frozen=True)
class Picture:
    """One picture."""

    name: str
    link: str  # the link's parameters; empty for the report
    ready: str  # a selector of what stands there once it is drawn
    height: int = 900  # pixels, at most
    scheme: Scheme = "light"


STEP = "page=step&run=fused.jsonl&turn=1&step=9&node=10"
PICTURES = (
    Picture("step", STEP, "svg.ss-tree", height=1010),
    Picture("step-dark", "page=step&run=fused-F16.jsonl&turn=1&step=0", "svg.ss-tree", height=820, scheme="dark"),
    Picture("diff", "page=diff", "svg.ss-tree", height=1010),
    Picture("runs", "page=runs", "[data-testid=stMain] table"),
    Picture("metrics", "page=metrics", "[data-testid=stMain] .js-plotly-plot .main-svg", height=1100),
    Picture("health", "page=health&run=fused-F16.jsonl", "[data-testid=stMain] table"),
    Picture("timeline", "page=timeline&run=pipeline.jsonl&turn=0&node=12", ".ss-flow", height=980),
    Picture("report", "", "svg.ss-tree", height=1010),
)


@contextmanager
def viewer(*places: str) -> Iterator[str]:
    """Runs ``specscope view`` on ``places``, seen from the sample traces, and gives its address."""
    command = [COMMAND, "view", "--no-browser", *places]
    with subprocess.Popen(command, cwd=ROOT / "sample_traces", stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            if found is None:
                raise click.ClickException("the viewer printed no address")
            yield found[0]
        finally:
            process.terminate()


@contextmanager
def report() -> Iterator[str]:
    """Writes the report of the pair, and gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        command = [COMMAND, "report", *PAIR, "--out", str(file)]
        subprocess.run(command, cwd=ROOT / "sample_traces", check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        yield file.as_uri()


def open_page(page: Page, address: str, picture: Picture) -> None:
    """Opens what ``picture`` shows, and waits until all of it is drawn."""
    page.goto(address)
    expect(page.locator(picture.ready).first).to_be_visible(timeout=WAIT)
    if picture.link:
        expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=WAIT)
        expect(page.locator("[data-stale=true], [data-testid=stSkeleton], [data-testid=stSpinner]")).to_have_count(
            0, timeout=WAIT
        )
        charts = page.locator("[data-testid=stPlotlyChart]").count()
        expect(page.locator("[data-testid=stPlotlyChart] .main-svg:first-child")).to_have_count(charts, timeout=WAIT)
    page.evaluate("document.fonts.ready")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(null))))")


def content_height(page: Page) -> int:
    """Of all that is on the page, in pixels; Streamlit scrolls within the page."""
    return int(
        page.evaluate(
            "(document.querySelector('[data-testid=stMainBlockContainer]') ?? document.body)"
            ".getBoundingClientRect().height"
        )
    )


def shoot(browser: Browser, address: str, picture: Picture, width: int, file: Path, *, whole: bool = False) -> None:
    """Takes ``picture`` at ``width``, cut at its height unless ``whole``."""
    viewport = {"width": width, "height": 4000 if whole else picture.height}
    with browser.new_context(viewport=viewport, color_scheme=picture.scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        open_page(page, address, picture)
        height = content_height(page) if whole else min(picture.height, content_height(page))
        page.set_viewport_size({"width": width, "height": height})
        open_page(page, page.url, picture)
        page.screenshot(path=file)
    click.echo(f"{file}  {width} x {height}")


@click.command()
@click.option("--look", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Every page.")
@click.option("--only", multiple=True, type=click.Choice([one.name for one in PICTURES]), help="These pictures alone.")
def main(look: Path | None, only: tuple[str, ...]) -> None:
    """Take the README's pictures of the viewer and of the report, from the sample traces."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise click.ClickException("chromium is not installed")
    (look or IMAGES).mkdir(parents=True, exist_ok=True)
    with (
        viewer(*PAIR, ".") as address,
        viewer(*STAGES) as of_stages,
        report() as written,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        for picture in PICTURES:
            server = of_stages if picture.name == "timeline" else address
            link = f"{server}/?{picture.link}" if picture.link else written
            if only and picture.name not in only:
                continue
            if look is None:
                shoot(browser, link, picture, WIDTHS[0], IMAGES / f"{picture.name}.png")
                continue
            for width in WIDTHS:
                for scheme in SCHEMES if picture.scheme == "light" else ():
                    seen = Picture(picture.name, picture.link, picture.ready, picture.height, scheme)
                    shoot(browser, link, seen, width, look / f"{picture.name}-{width}-{scheme}.png", whole=True)
        browser.close()


if __name__ == "__main__":
    main()
