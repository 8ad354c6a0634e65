"""Records made to eat memory or time: every command ends, within bounded memory, and says something other than yes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.toy_run import Toy, toy_lines
from support.traces import Lines, first_step, store

from specscope.tracer.errors import TraceError
from specscope.tracer.oracle.check import check_trace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound a child's address space")

MEMORY = 1 << 30  # address space of a child; it needs a quarter of that for an honest trace
SECONDS = 60


def bounded(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """Runs ``specscope`` with bounded memory and time."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("specscope")), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )


def huge_line(lines: Lines) -> bytes:
    return b'{"seq": 1, "kind": "turn_start", "x": "' + b"a" * 100_000_000 + b'"}\n'


def huge_line_without_end(lines: Lines) -> bytes:
    return b" " * 100_000_000


def huge_tree(lines: Lines) -> bytes:
    """A chain of 100,000 nodes, all of whose lists fit: its ancestors alone are a gigabyte of mask."""
    step, size = first_step(lines), 100_000
    parents = [max(0, slot - 1) for slot in range(size)]
    step["tree"] = {"tokens": [1] * size, "parents": parents, "depths": list(range(size))}
    rows = ["00" * (slot % 7 + 1) for slot in range(size)]
    step["tensors"] |= {"num_slots": size, "padded_slots": size, "mask_rows": rows, "positions": [0] * size}
    step["tensors"] |= {"token_ids": [1] * size, "prefix_visible": [0] * size, "index_tensors": {"parents": parents}}
    lines[0]["tree_policy"] = {"kind": "static", "depth": size, "top_k": 1, "budget": size, "choices": [[0]] * 10}
    return json.dumps(step).encode() + b"\n"


def huge_chain(lines: Lines) -> bytes:
    step = huge_tree(lines)
    lines[0]["tree_policy"] = {"kind": "chain", "depth": 100_000, "top_k": 1, "budget": 100_000}
    return step


@pytest.mark.slow
@pytest.mark.parametrize("make", [huge_line, huge_line_without_end, huge_tree, huge_chain])
def test_huge_records_are_bounded_in_memory_and_time(tmp_path: Path, make: Callable[[Lines], bytes]) -> None:
    lines = toy_lines(Toy(num_steps=2))
    honest = store(lines, tmp_path / "honest.jsonl")
    record = make(lines)
    path = tmp_path / "huge.jsonl"
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines[:2]) + record)
    for arguments in (("check", path), ("show", path), ("diff", honest, path)):
        done = bounded(*arguments)
        assert "Traceback" not in done.stderr, done.stderr[-2000:]
        assert done.returncode in ((1, 2, 4) if arguments[0] == "check" else (0, 1, 2, 3, 4))


def test_a_first_line_without_end_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "zeros.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 34)  # sparse: sixteen gigabytes of NUL bytes
    done = bounded("check", path)
    assert done.returncode == 2
    assert "torn first line" in done.stderr or "not JSON" in done.stderr
    with pytest.raises(TraceError):
        check_trace(path)
