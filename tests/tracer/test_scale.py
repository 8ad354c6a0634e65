"""Long traces: memory does not grow with the trace, and what is done for each step not with what it holds.

How fast that is, ``benchmarks/reading.py`` measures; here calls and bytes are counted, which a busy machine does not
change.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

import orjson
import pytest
from support.traces import EAGER, FUSED, ROOT

from specscope.schemas import decode_record, parse_line
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.files import index, reader, skim

BENCHMARK = ROOT / "benchmarks" / "reading.py"
MORE_MEGABYTES = 5  # what ten times the steps may cost; records that were held would cost fifteen
CALLS_PER_RECORD = 25  # of Python and of C, to read and validate one, which holds hundreds of values


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What the benchmark prints for some hundred steps of the sample trace."""
    command = [sys.executable, str(BENCHMARK), "--seed-trace", str(FUSED), "--steps", "400", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
@pytest.mark.parametrize("command", ["check", "diff"])
def test_memory_is_flat_in_the_traces_length(measured: dict[str, Any], command: str) -> None:
    assert measured["steps"] >= 400
    assert measured[f"{command} peak MB"] - measured[f"{command} peak MB, a tenth"] < MORE_MEGABYTES


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_the_benchmark_tells_every_speed(measured: dict[str, Any]) -> None:
    speeds = ["validated steps/s", "checked steps/s", "skim MB/s", "equal lines MB/s", "json.loads MB/s"]
    assert all(measured[name] > 0 for name in [*speeds, "diff / json.loads"])


class Decoded:
    """Counts the bytes that the readers of traces hand to a parser of JSON."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def counting(self, parser: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def parse(line: bytes) -> Any:
            self.num_bytes += len(line)
            return parser(line)

        return parse


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    counted = Decoded()
    monkeypatch.setattr(skim, "orjson", SimpleNamespace(loads=counted.counting(orjson.loads)))
    monkeypatch.setattr(index, "parse_line", counted.counting(parse_line))
    monkeypatch.setattr(reader, "decode_record", counted.counting(decode_record))
    return counted


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The benchmark's own code: what it measures is what is counted here."""
    spec = spec_from_file_location("reading", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair(benchmark: ModuleType, tmp_path: Path) -> tuple[Path, Path]:
    """Two traces that differ in timing alone."""
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    benchmark.repeat(FUSED, 100, a, benchmark.PLAIN)
    benchmark.repeat(FUSED, 100, b, benchmark.PARTNER)
    return a, b


def test_an_index_is_built_from_the_ends_of_the_lines(
    benchmark: ModuleType, pair: tuple[Path, Path], decoded: Decoded
) -> None:
    benchmark.index(pair[0])
    assert 0 < decoded.num_bytes < 0.4 * pair[0].stat().st_size


def test_equal_steps_are_paired_without_reading_what_they_hold(
    benchmark: ModuleType, pair: tuple[Path, Path], decoded: Decoded
) -> None:
    for path in pair:
        benchmark.index(path)
    before = decoded.num_bytes
    benchmark.pair_up(*pair)
    assert decoded.num_bytes - before < 0.1 * sum(path.stat().st_size for path in pair)


def test_a_diff_of_short_traces_decodes_each_step_once(decoded: Decoded) -> None:
    size = EAGER.stat().st_size + FUSED.stat().st_size
    assert size < 2 * reader.KEPT_TEXT
    assert diff_traces(EAGER, FUSED).num_steps == 37  # every float of them differs
    assert decoded.num_bytes < 1.1 * size


def read_steps(trace: reader.TraceReader) -> None:
    for turn in trace.turns:
        assert len(list(trace.steps(turn))) == len(turn.steps)


@pytest.mark.parametrize("kept", [0, reader.KEPT_TEXT])
def test_of_a_long_trace_only_the_first_steps_are_kept(pair: tuple[Path, Path], decoded: Decoded, kept: int) -> None:
    with reader.TraceReader(pair[0]) as trace:
        if kept:
            trace.keep_first_steps()
        read_steps(trace)
        before = decoded.num_bytes
        read_steps(trace)
    size = sum(len(line) for line in pair[0].read_bytes().splitlines(keepends=True) if b'"kind":"step"' in line)
    assert size - kept <= decoded.num_bytes - before <= size - 0.9 * kept


def test_no_value_of_a_record_is_validated_by_a_call_of_python(benchmark: ModuleType, pair: tuple[Path, Path]) -> None:
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        benchmark.validate(pair[0])
    finally:
        sys.setprofile(None)
    num_records = pair[0].read_bytes().count(b"\n")
    assert 0 < calls < CALLS_PER_RECORD * num_records
