"""Takes the README's screenshots of the viewer, from the sample traces. Needs chromium.

python docs/screenshots.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def viewer(*traces: str) -> Iterator[str]:
    """Runs ``specscope view`` on sample traces and gives its address."""
    command = [str(Path(sys.executable).with_name("specscope")), "view", "--no-browser", *traces]
    with subprocess.Popen(command, cwd=ROOT / "sample_traces", stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, "the viewer printed no address"
        try:
            yield found[0]
        finally:
            process.terminate()


def shoot(page: Page, address: str, name: str, ready: str, height: int) -> None:
    """Opens ``address``, waits for the text ``ready`` and for the drawings, and saves a picture."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.goto(address)
    page.get_by_text(ready).first.wait_for(timeout=60_000)
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / f"{name}.png")


def main() -> None:
    """Both pages."""
    chromium = shutil.which("chromium") or sys.exit("chromium is not installed")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page()
        with viewer("fused.jsonl") as address:
            shoot(page, f"{address}/?page=step&turn=1&step=9", "step", "Draft tree", 900)
        with viewer("eager.jsonl", "fused-F16.jsonl") as address:
            shoot(page, address, "diff", "DIFFERENT", 960)
        browser.close()


if __name__ == "__main__":
    main()
