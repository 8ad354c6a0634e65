"""Writing: nothing overwritten, nothing lost but the line being written, and a full disk ends the trace alone."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.traces import FUSED

from specscope.schemas import AnyRecord, decode_record
from specscope.tracer.errors import TraceLostError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter, check_writable


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


def test_what_one_writer_holds_another_leaves_untouched(tmp_path: Path) -> None:
    path, link = tmp_path / "held.jsonl", tmp_path / "link.jsonl"
    first = TraceWriter(path, overwrite=False, warn=warn_never)
    link.symlink_to(path)
    first.write(records()[0])
    before = path.read_bytes()
    for name in (path, link):
        with pytest.raises(UsageError, match=r"this process is still writing .*: close the recorder that has it"):
            TraceWriter(name, overwrite=True, warn=warn_never)
        with pytest.raises(UsageError, match="another run is writing"):
            check_writable(name, overwrite=True)
    assert path.read_bytes() == before
    for record in records()[1:-1]:
        first.write(record)
    first.finish("complete")
    assert path.read_bytes() == FUSED.read_bytes()
    check_writable(path, overwrite=True)
    TraceWriter(path, overwrite=True, warn=warn_never).finish("complete")
    assert path.read_bytes() != FUSED.read_bytes()


def test_a_writer_that_is_dropped_or_gives_up_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "dropped.jsonl"
    writer = TraceWriter(path, overwrite=False, warn=print)
    writer.hold(tmp_path)
    del writer
    second = TraceWriter(path, overwrite=True, warn=print)
    second.hold(tmp_path)
    second.give_up(OSError(28, "No space left on device"))
    third = TraceWriter(path, overwrite=True, warn=warn_never)
    third.hold(tmp_path)
    with pytest.raises(UsageError, match="another run is writing"):
        TraceWriter(tmp_path / "other.jsonl", overwrite=False, warn=warn_never).hold(tmp_path)
    third.finish("complete")


def test_where_there_are_no_locks_a_trace_is_written_none_the_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(file: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unknown)
    path = tmp_path / "plain.jsonl"
    TraceWriter(path, overwrite=False, warn=warn_never).finish("complete")
    assert path.stat().st_size
    monkeypatch.setattr("specscope.tracer.files.locks.fcntl", None)
    TraceWriter(path, overwrite=True, warn=warn_never).finish("complete")


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "killed.jsonl"
    child = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(FUSED), str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(UsageError, match="another run is writing"):
        TraceWriter(path, overwrite=True, warn=warn_never)
    child.kill()
    child.wait()
    child.stdout.close()
    TraceWriter(path, overwrite=True, warn=warn_never).finish("complete")


def test_a_device_is_nobodys_alone() -> None:
    first, second = (TraceWriter(Path(os.devnull), overwrite=True, warn=warn_never) for _ in range(2))
    first.finish("complete")
    second.finish("complete")


def test_a_lost_trace_is_said_again_at_the_end(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "lost.jsonl", overwrite=False, warn=print)
    writer.check_whole()
    writer.give_up(OSError(28, "No space left on device"))
    with pytest.raises(TraceLostError, match=r"lost\.jsonl is incomplete: No space left on device") as raised:
        writer.check_whole()
    assert raised.value.exit_code == 2


def test_an_index_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(FUSED.read_bytes())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    command = [str(Path(sys.executable).with_name("specscope")), "check", str(path)]
    done = subprocess.run(command, capture_output=True, preexec_fn=limit, check=False)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["run.jsonl"]


WRITE_FOREVER = """
import sys
from pathlib import Path
from specscope.schemas import decode_record
from specscope.tracer.files.writer import TraceWriter
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
