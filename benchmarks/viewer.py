"""How fast the viewer is, as its user sees it: in Chromium, from the key press to the picture.

    python -m benchmarks.viewer [--nodes N]... [--deep NODESxDEPTH]... [--steps N] [--size MEGABYTES] [--json]

A step change is timed in the page: from the key's event to the first frame behind the one in which the new tree stands
in the document, and to the moment when Streamlit is at rest and the address bar names the step. Opening is timed from
outside, with a browser that runs already: from the start of ``specscope view``, and from following its link, to the
tree. The traces are real steps of the demo models; the large one is such steps repeated. Needs chromium; Linux.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import click
from playwright.sync_api import Browser, Page, WebSocket, sync_playwright

from benchmarks.reading import COMMAND, PARTNER, PLAIN, repeat, without_index
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.bundle.write import write_bundle

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WAIT = 120_000  # milliseconds
#: Wide enough for any of the trees asked for.
SEED_RUN = ("run", "--prompt", "def parse(line):", "--device", "cpu")
WIDE = ("--top-k", "8", "--depth", "6")
MEGABYTE = 1_000_000

#: In the page: finds a step's tree in whatever shadow tree it stands, and notes when keys were pressed.
SCRIPT = """
window.treeOf = (step) => {
  for (const host of document.querySelectorAll("*")) {
    const found = host.shadowRoot?.querySelector(`svg.ss-tree[aria-label*="draft tree of step ${step},"]`);
    if (found) {
      return found;
    }
  }
  return null;
};
window.atRest = (step) =>
  new URL(location).searchParams.get("step") === String(step) &&
  document.querySelector("[data-testid=stApp][data-test-script-state=notRunning]") !== null;
window.addEventListener("keydown", () => (window.pressed = performance.now()), { capture: true });
window.arrival = (step) => new Promise((done) => {
  window.pressed = null;
  let painted = null;
  const look = () => {
    if (painted === null && window.pressed !== null && window.treeOf(step)) {
      painted = 0;
      requestAnimationFrame(() => setTimeout(() => (painted = performance.now() - window.pressed), 0));
    }
    if (painted && window.atRest(step)) {
      done([painted, performance.now() - window.pressed]);
    } else {
      setTimeout(look, 4);
    }
  };
  look();
});
"""


class Arrival(NamedTuple):
    """How long one step change took, in milliseconds from the key's event."""

    painted: float  # the new tree stands, and a frame was painted
    at_rest: float  # all else, too


@dataclass
class Traffic:
    """What the server sent over the page's connection, in bytes."""

    frames: list[int] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        """Counts from now on."""
        page.on("websocket", self._opened)

    def _opened(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: self.frames.append(len(frame)))


@dataclass(frozen=True)
class Viewer:
    """A viewer that runs."""

    process: subprocess.Popen[str]
    started: float  # of the performance counter, in seconds
    address: str

    def peaks(self) -> list[float]:
        """Largest resident sizes so far, in megabytes: of the command, and of its server."""
        pid = self.process.pid
        child = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0]
        return [_peak(str(pid)), _peak(child)]


def _peak(pid: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / MEGABYTE


@contextmanager
def viewing(*traces: Path) -> Iterator[Viewer]:
    """Runs ``specscope view``."""
    started = time.perf_counter()
    with subprocess.Popen(
        [str(COMMAND), "view", "--no-browser", *map(str, traces)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            if found is None:
                raise click.ClickException("the viewer printed no address")
            yield Viewer(process, started, found[0])
        finally:
            process.terminate()


@contextmanager
def fresh_page(browser: Browser) -> Iterator[Page]:
    """A page of a visitor who was never here."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.add_init_script(SCRIPT)
        yield page


class TreeShape(NamedTuple):
    """The trees of a trace."""

    nodes: int  # drafted
    depth: int | None = None  # of the deepest node, in trees of fixed shape; None: the best of what is drafted

    @property
    def name(self) -> str:
        """As the table calls them."""
        return f"{self.nodes} nodes" if self.depth is None else f"{self.nodes} nodes to depth {self.depth}"


def shape_of(text: str) -> TreeShape:
    """The shape that ``255x20`` stands for.

    Raises:
        click.BadParameter: where it stands for none.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,2})", text, re.ASCII)
    if found is None or int(found[2]) > int(found[1]):
        raise click.BadParameter(f"got {text!r}, wanted NODESxDEPTH, no deeper than it has nodes, such as 255x20")
    return TreeShape(int(found[1]), int(found[2]))


def chains(nodes: int, depth: int) -> list[list[int]]:
    """The child-rank paths of a tree of ``nodes`` nodes: chains from the root down to ``depth``, and a shorter one."""
    whole, rest = divmod(nodes, depth)
    lengths = [depth] * whole + [rest]
    return [[rank, *[0] * below] for rank, length in enumerate(lengths) for below in range(length)]


def record(folder: Path, shape: TreeShape, tokens: int) -> Path:
    """A trace of one long turn whose trees have that shape."""
    path = folder / f"{shape.name}.jsonl"
    tree = [*WIDE, "--budget", str(shape.nodes)]
    if shape.depth is not None:
        paths = folder / f"{shape.name}.json"
        paths.write_text(json.dumps(chains(shape.nodes, shape.depth)), encoding="utf-8")
        tree = ["--tree", f"static:{paths}"]
    command = [str(COMMAND), *SEED_RUN, *tree, "--max-new-tokens", str(tokens), "--trace", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return path


def time_steps(browser: Browser, viewer: Viewer, name: str, steps: int) -> dict[str, float]:
    """Step changes of one page: milliseconds, and bytes sent."""
    traffic, arrivals, sent = Traffic(), [], []
    with fresh_page(browser) as page:
        traffic.listen(page)
        page.goto(f"{viewer.address}/?page={name}&turn=0&step=0")
        page.wait_for_function("window.treeOf(0) && window.atRest(0)", timeout=WAIT)
        page.wait_for_timeout(1500)  # Streamlit loads the code of its buttons late
        opening = sum(traffic.frames)
        for step in range(1, steps + 1):
            before = sum(traffic.frames)
            page.evaluate(f"() => {{ window.found = window.arrival({step}) }}")
            page.keyboard.press("ArrowRight")
            arrivals.append(Arrival(*page.evaluate("window.found")))
            page.wait_for_timeout(100)  # a reader looks at what came, at least for a moment
            sent.append(sum(traffic.frames) - before)
    found = {f"{what} ms": [getattr(one, what) for one in arrivals] for what in Arrival._fields}
    table: dict[str, float] = {}
    for what, values in found.items():
        table[f"{what}, median"] = statistics.median(values)
        table[f"{what}, p90"] = sorted(values)[int(0.9 * len(values))]
    table["sent a step kB, median"] = statistics.median(sent) / 1000
    table["sent at opening kB"] = opening / 1000
    table["largest message kB"] = max(traffic.frames) / 1000
    return table


def bundled_bytes(site: Path, trace: Path) -> float:
    """Per step, without the page itself, which is there once."""
    num_steps = write_bundle(site, [trace]).num_steps
    return sum(path.stat().st_size for path in (site / "data").iterdir()) / num_steps


def time_changes(browser: Browser, folder: Path, shape: TreeShape, steps: int) -> dict[str, float]:
    """Step changes on both pages, for trees of about that many nodes."""
    seed = record(folder, shape, tokens=8 * steps)
    a, b = folder / f"{shape.name}-a.jsonl", folder / f"{shape.name}-b.jsonl"
    for path, variation in ((a, PLAIN), (b, PARTNER)):
        repeat(seed, 1, path, variation)
    with TraceReader(a) as reader:
        there = len(reader.turns[0].steps) - 1
        tree = reader.step(reader.turns[0], 1).tree
    if there < steps:
        click.echo(f"only {there} steps of {shape.name}", err=True)
    table = {"drafted nodes": 0.0 if tree is None else len(tree.tokens) - 1.0}
    table["bundle: MB per 1,000 steps"] = bundled_bytes(folder / f"{shape.name}-site", seed) * 1_000 / MEGABYTE
    with viewing(a, b) as viewer:
        for name in ("step", "diff"):
            found = time_steps(browser, viewer, name, min(steps, there))
            table |= {f"{name}: {what}": value for what, value in found.items()}
    return table


def time_opening(browser: Browser, trace: Path) -> dict[str, float]:
    """Opening one trace, in seconds, and the memory that it took."""
    traffic = Traffic()
    with viewing(trace) as viewer:
        addressed = time.perf_counter()
        with fresh_page(browser) as page:
            traffic.listen(page)
            page.goto(f"{viewer.address}/?page=step", wait_until="commit")
            page.wait_for_function("window.treeOf(0)", timeout=WAIT, polling=10)
            seen = time.perf_counter()
            page.keyboard.press("End")
            page.wait_for_timeout(1000)
            command, server = viewer.peaks()
    return {
        "command to address s": addressed - viewer.started,
        "command to tree s": seen - viewer.started,
        "link to tree s": seen - addressed,
        "largest message kB": max(traffic.frames) / 1000,
        "command's peak MB": command,
        "server's peak MB": server,
    }


#: A page of Streamlit's that counts how often its one button was clicked, in a fragment as the viewer's pages are.
BUTTON = """import streamlit as st

@st.fragment
def page():
    st.button("go", on_click=lambda: st.session_state.update(at=st.session_state.get("at", 0) + 1))
    st.text(f"at {st.session_state.get('at', 0)}")

page()
"""
#: In the page: from the click on that button to the first frame behind the one in which the new number stands.
CLICKED = """
(number) => new Promise((done) => {
  const began = performance.now();
  const look = () => {
    const words = [...document.querySelectorAll("[data-testid=stText]")].map((one) => one.textContent);
    const there = words.includes(`at ${number}`);
    if (there) {
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - began), 0));
    } else {
      setTimeout(look, 4);
    }
  };
  document.querySelector("[data-testid=stButton] button").click();
  look();
})
"""


@contextmanager
def serving(script: Path) -> Iterator[int]:
    """Runs a script by Streamlit alone; the port at which it answers."""
    options = ["--server.headless=true", "--server.fileWatcherType=none", "--browser.gatherUsageStats=false"]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *options, "--server.address=127.0.0.1"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*command, f"--server.port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not _answers(port):
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()


def time_streamlit(browser: Browser, folder: Path, clicks: int) -> dict[str, float]:
    """A page of Streamlit's that holds one word and one button: what no viewer on it can be faster than. Opening it in
    seconds, and ``clicks`` clicks in milliseconds, each of which the server answers."""
    script = folder / "button.py"
    script.write_text(BUTTON, encoding="utf-8")
    started = time.perf_counter()
    with serving(script) as port:
        addressed = time.perf_counter()
        with fresh_page(browser) as page:
            page.goto(f"http://127.0.0.1:{port}", wait_until="commit")
            page.get_by_text("at 0", exact=True).wait_for(timeout=WAIT)
            seen = time.perf_counter()
            page.wait_for_timeout(1500)
            answers = []
            for number in range(1, clicks + 1):
                answers.append(page.evaluate(CLICKED, number))
                page.wait_for_timeout(100)
    return {
        "command to word s": seen - started,
        "link to word s": seen - addressed,
        "click painted ms, median": statistics.median(answers),
        "click painted ms, p90": sorted(answers)[int(0.9 * len(answers))],
    }


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def time_large(browser: Browser, folder: Path, megabytes: int) -> dict[str, float]:
    """Opening a trace of ``megabytes``, without an index and with one."""
    seed, large = record(folder, TreeShape(63), tokens=120), folder / "large.jsonl"
    with TraceReader(seed) as reader:
        num_steps = sum(len(turn.steps) for turn in reader.turns)
    steps = max(1, round(num_steps * megabytes * MEGABYTE / seed.stat().st_size))
    table = {"steps": float(repeat(seed, steps, large, PLAIN)), "MB": large.stat().st_size / MEGABYTE}
    without_index(large)
    for name in ("no index", "index"):
        table |= {f"{name}: {what}": value for what, value in time_opening(browser, large).items()}
    large.unlink()
    return table


@click.command()
@click.option("--nodes", multiple=True, default=(64, 256), show_default=True, type=click.IntRange(1), help="Of a tree.")
@click.option("--deep", multiple=True, metavar="NODESxDEPTH", help="A tree of fixed shape, such as 255x20.")
@click.option(
    "--steps", default=30, show_default=True, type=click.IntRange(2), help="Step changes to time on each page."
)
@click.option(
    "--size", default=1000, show_default=True, type=click.IntRange(0), help="Of the large trace, in MB; 0: none."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(nodes: tuple[int, ...], deep: tuple[str, ...], steps: int, size: int, as_json: bool) -> None:
    """Measure the viewer in Chromium: step changes, what is sent, and opening a large trace."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise click.ClickException("chromium is not installed")
    shapes = [*map(TreeShape, nodes), *map(shape_of, deep)]
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for shape in shapes:
            table[shape.name] = time_changes(browser, Path(name), shape, steps)
        table["one word and one button by Streamlit alone"] = time_streamlit(browser, Path(name), steps)
        if size:
            table[f"{size} MB"] = time_large(browser, Path(name), size)
        browser.close()
    if as_json:
        click.echo(json.dumps(table))
        return
    for part, rows in table.items():
        click.echo(part)
        for what, value in rows.items():
            click.echo(f"  {what:34s}{value:12,.1f}")


if __name__ == "__main__":
    main()
