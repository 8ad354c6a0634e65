"""Writing: nothing overwritten, nothing lost but the line being written, and a full disk ends the trace alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.traces import FUSED

from specscope.schemas import AnyRecord, decode_record
from specscope.tracer.errors import UsageError
from specscope.tracer.reader import TraceReader
from specscope.tracer.writer import TraceWriter, check_writable


def records() -> list[AnyRecord]:
    return [decode_record(line) for line in FUSED.read_bytes().splitlines()]


def warn_never(text: str) -> None:
    raise AssertionError(text)


def test_a_written_trace_is_byte_for_byte_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "copy.jsonl"
    writer = TraceWriter(path, overwrite=False, warn=warn_never)
    for record in records()[:-1]:
        writer.write(record)
    writer.finish("complete")
    assert path.read_bytes() == FUSED.read_bytes()


@pytest.mark.parametrize(
    "opens", [check_writable, lambda p, overwrite: TraceWriter(p, overwrite=overwrite, warn=print)]
)
def test_what_cannot_be_written_is_said_in_words(tmp_path: Path, opens: object) -> None:
    assert callable(opens)
    existing = tmp_path / "there.jsonl"
    existing.write_text("precious")
    with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
        opens(existing, overwrite=False)
    assert existing.read_text() == "precious"
    with pytest.raises(UsageError, match="does not exist"):
        opens(tmp_path / "no" / "folder.jsonl", overwrite=False)
    with pytest.raises(UsageError, match="cannot write"):
        opens(tmp_path, overwrite=True)


def test_a_full_disk_ends_the_trace_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    path = tmp_path / "full.jsonl"
    writer = TraceWriter(path, overwrite=False, warn=warnings.append)
    first, second, *rest = records()
    writer.write(first)

    def full(file: int, line: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    writer.write(second)
    for record in rest:
        writer.write(record)
    writer.finish("complete")
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
    with TraceReader(path) as reader:
        assert reader.truncated


def test_nothing_is_written_behind_a_gap_where_room_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls, warnings = os.write, [0], list[str]()

    def full_once(file: int, line: bytes) -> int:
        calls[0] += 1
        if calls[0] == 4:  # half of the line still fits
            return real(file, bytes(line[:50]))
        if calls[0] == 5:
            raise OSError(28, "No space left on device")
        return real(file, line)

    monkeypatch.setattr(os, "write", full_once)
    path = tmp_path / "gap.jsonl"
    writer = TraceWriter(path, overwrite=False, warn=warnings.append)
    for record in records()[:-1]:
        writer.write(record)
    writer.finish("complete")
    assert len(warnings) == 1
    assert writer.broken
    lines = FUSED.read_bytes().splitlines(keepends=True)
    assert path.read_bytes() == b"".join(lines[:3]) + lines[3][:50]
    with TraceReader(path) as reader:
        assert reader.truncated
        assert reader.index.torn_bytes == 50


def test_a_file_that_was_removed_is_told_of_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = tmp_path / "gone.jsonl"
    writer = TraceWriter(path, overwrite=False, warn=warnings.append)
    for record in records()[:-1]:
        writer.write(record)
        path.unlink(missing_ok=True)
    writer.finish("complete")
    assert writer.broken
    assert len(warnings) == 1
    assert "removed while it was written" in warnings[0]
    assert not path.exists()


def test_what_only_closing_tells_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    writer = TraceWriter(tmp_path / "quota.jsonl", overwrite=False, warn=warnings.append)
    writer.write(records()[0])

    def over_quota(file: int) -> None:
        real(file)
        raise OSError(122, "Disk quota exceeded")

    real = os.close
    monkeypatch.setattr(os, "close", over_quota)
    writer.finish("complete")
    monkeypatch.undo()
    assert [text for text in warnings if "Disk quota exceeded" in text] == warnings != []
    assert writer.broken


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, line: real(file, bytes(line[:100])))
    path = tmp_path / "short.jsonl"
    writer = TraceWriter(path, overwrite=False, warn=warn_never)
    for record in records()[:-1]:
        writer.write(record)
    writer.finish("complete")
    assert path.read_bytes() == FUSED.read_bytes()


WRITE_FOREVER = """
import sys
from pathlib import Path
from specscope.schemas import decode_record
from specscope.tracer.writer import TraceWriter
records = [decode_record(line) for line in Path(sys.argv[1]).read_bytes().splitlines()]
writer = TraceWriter(Path(sys.argv[2]), overwrite=False, warn=print)
print("ready", flush=True)
for record in records[:2]:
    writer.write(record)
while True:
    writer.write(records[2])
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_lines_and_at_most_one_torn(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / f"killed-{number}.jsonl"
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, str(FUSED), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.003 * number)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if not path.stat().st_size:
            continue
        *whole, torn = path.read_bytes().split(b"\n")
        for line in whole:
            decode_record(line)
        with TraceReader(path) as reader:
            assert reader.truncated
            assert reader.index.num_lines == len(whole)
            assert reader.index.torn_bytes == len(torn)
