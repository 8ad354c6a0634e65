"""Killed at any moment: what was written is whole, but for at most the record being written, and says that it was cut.

One process imports everything once and forks a writer a round; the writer counts what it has written where the test can
read it after its death.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.called import specscope
from support.toy_run import Toy, toy_lines
from support.traces import store

from specscope.schemas import decode_record
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

ROUNDS = 200
LONGEST = 10.0  # seconds that a writer may take to the record at which it is killed
NUM_RECORDS = 1000  # before the last of which a writer is killed; it has more
JUDGED = 5  # every so many files is judged by the oracle, too

NURSERY = """
import mmap, os, struct, sys, time
from pathlib import Path
from specscope.schemas import decode_record
from specscope.tracer.files.writer import TraceWriter

source, counter = Path(sys.argv[1]), open(sys.argv[2], "r+b")
records = [decode_record(line) for line in source.read_bytes().splitlines()][:-1]
count = mmap.mmap(counter.fileno(), 8)
print("ready", flush=True)
for path in sys.stdin:
    count[:8] = struct.pack("q", 0)
    child = os.fork()
    if child == 0:
        writer = TraceWriter(Path(path.strip()), overwrite=False, warn=lambda text: os._exit(3))
        for number, record in enumerate(records, start=1):
            writer.write(record)
            count[:8] = struct.pack("q", number)
        time.sleep(60)  # never ended: killed late, on a busy machine, it is a killed run none the less
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


class Nursery:
    """Starts writers, to be killed."""

    def __init__(self, source: Path, counter: Path) -> None:
        counter.write_bytes(bytes(8))
        self._file = counter.open("rb")
        self._count = mmap.mmap(self._file.fileno(), 8, access=mmap.ACCESS_READ)
        command = [sys.executable, "-c", NURSERY, str(source), str(counter)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._hear("ready")

    def kill_one(self, path: Path, at: int) -> int:
        """Kills a writer of ``path`` as soon as it knows of ``at`` records that are written; how many it knew of."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        child = int(self._hear())
        end = time.monotonic() + LONGEST
        while self._num_known() < at and time.monotonic() < end:
            pass
        os.kill(child, signal.SIGKILL)
        self._hear("dead")
        return self._num_known()

    def _num_known(self) -> int:
        return int(struct.unpack("q", self._count[:8])[0])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._count.close()
        self._file.close()

    def _hear(self, wanted: str | None = None) -> str:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        assert wanted in (None, said)
        return said


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    source = store(toy_lines(Toy(num_turns=300, num_steps=6)), tmp_path / "source.jsonl")
    made = Nursery(source, tmp_path / "count")
    yield made
    made.close()


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_loses_at_most_the_record_being_written(tmp_path: Path, nursery: Nursery) -> None:
    rng, lengths = random.Random(7), []
    for number in range(ROUNDS):
        path = tmp_path / f"killed-{number}.jsonl"
        known = nursery.kill_one(path, rng.randrange(NUM_RECORDS))
        if not path.exists() or not path.stat().st_size:
            assert known == 0
            continue
        *whole, torn = path.read_bytes().split(b"\n")
        assert known <= len(whole) <= known + 1
        lengths.append(len(whole))
        if not whole:
            continue
        decode_record(whole[-1])
        with TraceReader(path) as reader:
            assert reader.truncated
            assert (reader.index.num_lines, reader.index.torn_bytes) == (len(whole), len(torn))
            assert reader.index.num_lines == sum(1 for _ in reader.numbered_lines())
        if number % JUDGED == 0:
            report = check_trace(path)
            assert report.truncated
            assert report.num_violations == 0
        path.unlink()
    assert len(set(lengths)) > ROUNDS // 4, "the writers were not killed at different moments"


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 2, 5])
def test_a_killed_run_leaves_a_trace_that_says_so(tmp_path: Path, steps: int) -> None:
    path, kept = tmp_path / "run.jsonl", tmp_path / "kept.jsonl"
    command = Path(sys.executable).with_name("specscope")
    child = subprocess.Popen(
        [str(command), "run", "--prompt", "def parse(line):", "--max-new-tokens", "400", "--trace", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not path.exists() or path.read_bytes().count(b"\n") < 1 + steps:
        assert child.poll() is None, "the run was over before it was killed"
        time.sleep(0.005)
    child.kill()
    child.wait()
    shutil.copy(path, kept)
    done = specscope("check", kept)
    assert done.code == 4
    assert "TRUNCATED" in done.out
    assert specscope("show", kept).code == (0 if b'"turn_start"' in kept.read_bytes() else 2)
