"""How fast traces are read, skimmed, checked and compared, and whether memory stays flat.

    python benchmarks/reading.py [--steps N] [--seed-trace FILE] [--json]

The trace is real steps of the demo models, with 63 drafted nodes each, repeated under new turn numbers until there are
N; its partner differs from it in ``seq``, ``created`` and timing alone. All times are the best of three in one process,
so that the ratios stand on their own where the machine is busy.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import xxhash

from specscope.schemas import Step
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.files.index import sidecar_path
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.skim import equal_but_for_timing
from specscope.tracer.oracle.check import check_trace

ROUNDS = 3
COMMAND = Path(sys.executable).with_name("specscope")
SEED_RUN = ("run", "--device", "cpu", "--prompt", "def parse(line):", "--budget", "63", "--top-k", "8", "--depth", "6")
SEED_LENGTH = ("--max-new-tokens", "120")
_PLACE = re.compile(rb'^\{"seq":\d+,"kind":"step","turn":(\d+),')
_DURATION = re.compile(rb'"(\w+_ns)":(\d+)')


def record_seed(folder: Path, mode: str) -> Path:
    """A trace of real steps."""
    path = folder / f"seed-{mode}.jsonl"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(COMMAND), *SEED_RUN, *SEED_LENGTH, "--mode", mode, "--trace", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return path


class Variation(NamedTuple):
    """What a repeated trace changes."""

    created: str
    later_ns: int  # added to every duration of a step


PLAIN, PARTNER = Variation("2026-01-01T00:00:00+00:00", 0), Variation("2026-01-02T00:00:00+00:00", 1000)


def repeat(seed: Path, steps: int, path: Path, variation: Variation) -> int:
    """Writes the turns of ``seed`` again and again under new numbers and names, until there are ``steps`` steps.

    Returns:
        How many steps were written.
    """
    manifest, *body = seed.read_bytes().splitlines(keepends=True)[:-1]
    digest, counts = xxhash.xxh3_128(), Counter[str]()
    with path.open("wb") as file:
        for kind, line in _lines(manifest, body, steps, variation):
            file.write(line)
            digest.update(line)
            counts[kind] += 1
        end = {"kind": "run_end", "reason": "complete", "counts": counts, "digest": digest.hexdigest()}
        file.write(_line({"seq": counts.total(), **end}))
    return counts["step"]


class _Line(NamedTuple):
    kind: str
    line: bytes


def _lines(manifest: bytes, body: list[bytes], steps: int, variation: Variation) -> Iterator[_Line]:
    yield _Line("manifest", _line({**json.loads(manifest), "created": variation.created}))
    turns = 1 + max(json.loads(line)["turn"] for line in body if b'"kind":"turn_start"' in line)
    seq, copy, written = 1, 0, 0
    while written < steps:
        for line in body:
            found = _PLACE.match(line)
            written += found is not None
            yield _again(line, found, seq, copy * turns, variation)
            seq += 1
        copy += 1


def _again(line: bytes, step: re.Match[bytes] | None, seq: int, more_turns: int, variation: Variation) -> _Line:
    if step is not None:
        place = b'{"seq":%d,"kind":"step","turn":%d,' % (seq, int(step[1]) + more_turns)
        rest = line[step.end() :]
        if variation.later_ns:
            rest = _DURATION.sub(lambda m: b'"%s":%d' % (m[1], int(m[2]) + variation.later_ns), rest)
        return _Line("step", place + rest)
    record = json.loads(line)
    record |= {"seq": seq, "turn": record["turn"] + more_turns}
    if record["kind"] == "turn_start":
        record["prompt_id"] += f" again {more_turns}" if more_turns else ""
    return _Line(record["kind"], _line(record))


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def best(work: Callable[[], object]) -> float:
    """Processor seconds of the fastest of some rounds: what else the machine does shall not count."""
    durations = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        durations.append(time.process_time() - start)
    return min(durations)


def without_index(*paths: Path) -> None:
    """Makes sure that the next reader builds the index."""
    for path in paths:
        sidecar_path(path).unlink(missing_ok=True)


def validate(path: Path) -> None:
    """Reads and validates every record."""
    with TraceReader(path) as reader:
        for _ in reader.numbered_lines():
            pass


def index(path: Path) -> None:
    """Builds the index."""
    without_index(path)
    with TraceReader(path) as reader:
        assert reader.turns


def pair_up(a: Path, b: Path) -> None:
    """Tells of all pairs of step lines that they are equal but for timing."""
    with TraceReader(a) as left, TraceReader(b) as right:
        for turns in zip(left.turns, right.turns, strict=True):
            for one, other in zip(left.step_lines(turns[0]), right.step_lines(turns[1]), strict=True):
                assert equal_but_for_timing(one.line, other.line)


def compare(a: Path, b: Path) -> None:
    """What ``specscope diff`` does."""
    without_index(a, b)
    assert diff_traces(a, b).verdict == "equal"


def load(*paths: Path) -> None:
    """The yardstick: the standard library's parser over every line."""
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                json.loads(line)


#: Runs ``specscope`` and prints its own largest resident size in kB: what the system tells of a child begins with the
#: size of the process that it was forked from.
_PEAK = """
import atexit, sys
from specscope.tracer.cli.main import main
def tell():
    status = open("/proc/self/status").read()
    print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
atexit.register(tell)
sys.argv = ["specscope", *sys.argv[1:]]
main()
"""


def peak_megabytes(command: str, *paths: Path) -> float:
    """The largest resident size of ``specscope COMMAND PATHS``, run alone; Linux."""
    without_index(*paths)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, command, *map(str, paths)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise click.ClickException(f"specscope {command} exited {done.returncode}: {done.stderr}")
    return int(done.stderr.split()[-1]) / 1024


def measure(folder: Path, seed: Path, steps: int) -> dict[str, float]:
    """All measurements by name."""
    a, b, short_a, short_b = (folder / f"{name}.jsonl" for name in ("a", "b", "short-a", "short-b"))
    written = repeat(seed, steps, a, PLAIN)
    repeat(seed, steps, b, PARTNER)
    repeat(seed, max(1, steps // 10), short_a, PLAIN)
    repeat(seed, max(1, steps // 10), short_b, PARTNER)
    report = check_trace(short_a)
    assert report.num_violations == 0, [tally.first for tally in report.invariants.values() if tally.first]
    megabytes = a.stat().st_size / 1e6
    both = megabytes + b.stat().st_size / 1e6
    parse = best(lambda: load(a, b))
    return {
        "steps": written,
        "slots a step": _slots(a),
        "MB a file": megabytes,
        "validated steps/s": written / best(lambda: validate(a)),
        "checked steps/s": written / best(lambda: check_trace(a)),
        "skim MB/s": megabytes / best(lambda: index(a)),
        "equal lines MB/s": both / best(lambda: pair_up(a, b)),
        "json.loads MB/s": both / parse,
        "diff / json.loads": best(lambda: compare(a, b)) / parse,
        "check peak MB": peak_megabytes("check", a),
        "check peak MB, a tenth": peak_megabytes("check", short_a),
        "diff peak MB": peak_megabytes("diff", a, b),
        "diff peak MB, a tenth": peak_megabytes("diff", short_a, short_b),
    }


def measure_modes(folder: Path, fused: Path, eager: Path, steps: int) -> dict[str, float]:
    """What it costs to compare steps of which every float differs, as those of two modes do."""
    a, b = folder / "eager.jsonl", folder / "fused.jsonl"
    written = repeat(eager, steps, a, PLAIN)
    assert written == repeat(fused, steps, b, PLAIN)
    judged = best(lambda: compare(a, b))
    return {
        "two modes, ms a step": 1000 * judged / written,
        "two modes / json.loads": judged / best(lambda: load(a, b)),
    }


def _slots(path: Path) -> float:
    """Mean number of slots, over the first turn."""
    with TraceReader(path) as reader:
        trees = [step.tree for step in reader.steps(reader.turns[0]) if isinstance(step, Step)]
    return sum(len(tree.tokens) for tree in trees if tree is not None) / len(trees)


@click.command()
@click.option("--steps", default=3000, show_default=True, type=click.IntRange(1), help="Steps of the long trace.")
@click.option("--seed-trace", type=click.Path(path_type=Path, exists=True), help="Repeat this trace, not a fresh run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(steps: int, seed_trace: Path | None, as_json: bool) -> None:
    """Measure reading: steps a second, megabytes a second, the ratio of diff to json.loads, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        seed = seed_trace or record_seed(Path(folder), "fused")
        measured = measure(Path(folder), seed, steps)
        if seed_trace is None:
            measured |= measure_modes(Path(folder), seed, record_seed(Path(folder), "eager"), steps)
    if as_json:
        click.echo(json.dumps(measured))
        return
    for name, value in measured.items():
        click.echo(f"{name:24s}{value:12,.1f}")


if __name__ == "__main__":
    main()
