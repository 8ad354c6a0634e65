"""Compressed traces, standard input and pipes: read like files, and written so that a kill loses one record at most."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import time
import types
import zlib
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.traces import EAGER, FUSED

from specscope.schemas import decode_record
from specscope.tracer.errors import TraceError, UsageError
from specscope.tracer.files import plain
from specscope.tracer.files.index import sidecar_path
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter, check_writable
from specscope.tracer.oracle.check import check_trace

COMMAND = str(Path(sys.executable).with_name("specscope"))
LINES = FUSED.read_bytes().splitlines(keepends=True)


def piped(content: bytes, *arguments: str | Path, tmp: Path) -> subprocess.CompletedProcess[bytes]:
    """Runs the command with ``content`` on standard input, and temporary files in ``tmp``."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        input=content,
        capture_output=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp)},
        timeout=120,
    )


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "fused.jsonl.gz"
    path.write_bytes(gzip.compress(FUSED.read_bytes()))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "--format", "json"),
        ("show",),
        ("show", "--step", "2"),
        ("show", "--step", "2", "--format", "dot"),
    ],
    ids=" ".join,
)
def test_one_trace_reads_the_same_from_everywhere(tmp_path: Path, packed: Path, arguments: tuple[str, ...]) -> None:
    command, *options = arguments
    expected = piped(b"", command, FUSED, *options, tmp=tmp_path).stdout
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ways = {
        "-": FUSED.read_bytes(),
        "/dev/stdin": FUSED.read_bytes(),
        str(packed): b"",
        "- ": packed.read_bytes(),  # compressed on standard input
    }
    for name, content in ways.items():
        done = piped(content, command, name.strip(), *options, tmp=temporary)
        assert done.stdout == expected.replace(str(FUSED).encode(), name.strip().encode()), done.stderr
        assert done.returncode == 0
    assert list(temporary.iterdir()) == []  # no copy outlives its process
    assert not sidecar_path(packed).exists()


def test_a_diff_takes_a_compressed_file_and_standard_input(tmp_path: Path, packed: Path) -> None:
    expected = specscope("diff", EAGER, FUSED, "--format", "json")
    done = piped(EAGER.read_bytes(), "diff", "-", packed, "--format", "json", tmp=tmp_path)
    got = done.stdout.decode().replace(str(packed), str(FUSED)).replace('"baseline":"-"', f'"baseline":"{EAGER}"')
    assert (done.returncode, got.replace('"-"', f'"{EAGER}"')) == (expected.code, expected.out)


def test_a_compressed_copy_is_the_same_run(packed: Path) -> None:
    outcome = specscope("diff", FUSED, packed)
    assert "the candidate is a copy of the baseline, byte for byte" in " ".join(outcome.out.replace("│", " ").split())


def test_a_process_substitution_is_read(packed: Path) -> None:
    line = f"'{COMMAND}' diff <(zcat '{packed}') <(cat '{EAGER}') --format json"
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=False, timeout=120)
    assert done.returncode == specscope("diff", FUSED, EAGER).code, done.stderr


def test_a_report_is_drawn_of_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = piped(gzip.compress(FUSED.read_bytes()), "report", "-", "--out", out, tmp=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"<svg" in out.read_bytes()


def test_results_are_summed_up_from_everywhere(tmp_path: Path) -> None:
    pairs, results = tmp_path / "pairs.csv", tmp_path / "results.jsonl"
    pairs.write_text(f"name,baseline,candidate\np,{EAGER},{FUSED}\n")
    assert specscope("diff-many", pairs, "--out", results).code == 0
    expected = specscope("summary", results)
    assert expected.code == 0
    compressed = tmp_path / "results.jsonl.gz"
    compressed.write_bytes(gzip.compress(results.read_bytes()))
    assert specscope("summary", compressed) == expected
    assert piped(results.read_bytes(), "summary", "-", tmp=tmp_path).stdout.decode() == expected.out


# What is written.


def test_each_record_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl.gz"
    writer = TraceWriter(path, overwrite=False, warn=print)
    for number, line in enumerate(LINES[:-1], 1):
        writer.write(decode_record(line))
        assert zlib.decompressobj(31).decompress(path.read_bytes()) == b"".join(LINES[:number])
    writer.finish("complete")
    assert gzip.decompress(path.read_bytes()) == FUSED.read_bytes()
    assert len(path.read_bytes()) < 0.5 * len(FUSED.read_bytes())
    assert check_trace(path).num_violations == 0


def test_a_killed_writer_loses_at_most_the_record_being_written(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl.gz"
    program = (
        "import sys, time; from pathlib import Path; from specscope.schemas import decode_record;"
        "from specscope.tracer.files.writer import TraceWriter;"
        "writer = TraceWriter(Path(sys.argv[1]), overwrite=False, warn=print);"
        "[writer.write(decode_record(line)) for line in Path(sys.argv[2]).read_bytes().splitlines()[:9]];"
        "print(9, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path), str(FUSED)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"9\n"
        child.send_signal(signal.SIGKILL)
    with TraceReader(path) as reader:
        assert [record.line for record in reader.numbered_lines()] == LINES[:9]
        assert reader.truncated
    assert specscope("check", path).code == 4


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_cut_anywhere_is_read_as_far_as_it_goes(tmp_path: Path, whole: bool) -> None:
    path = tmp_path / "run.jsonl.gz"
    writer = TraceWriter(path, overwrite=True, warn=print)
    for line in LINES[:-1]:
        writer.write(decode_record(line))
    writer.finish("complete")
    content = gzip.compress(FUSED.read_bytes()) if whole else path.read_bytes()
    most = 0
    for cut in range(len(content) // 3, len(content), len(content) // 23):
        path.write_bytes(content[:cut])
        os.utime(path, ns=(cut, cut))
        with TraceReader(path) as reader:
            lines = [record.line for record in reader.numbered_lines()]
            assert lines == LINES[: len(lines)]
            assert reader.truncated
        most = max(most, len(lines))
    assert most > len(LINES) // 2


def test_a_full_disk_ends_the_trace_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    path = tmp_path / "full.jsonl.gz"
    writer = TraceWriter(path, overwrite=False, warn=warnings.append)
    writer.write(decode_record(LINES[0]))

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("specscope.tracer.files.writer.os.write", full)
    writer.write(decode_record(LINES[1]))
    writer.finish("complete")
    assert writer.broken
    assert len(warnings) == 1
    with TraceReader(path) as reader:
        assert [record.line for record in reader.numbered_lines()] == LINES[:1]


def test_a_full_disk_at_the_very_end_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    writer = TraceWriter(tmp_path / "full.jsonl.gz", overwrite=False, warn=warnings.append)
    writer.write(decode_record(LINES[0]))
    left, write = [1], os.write

    def nearly_full(file: int, data: bytes) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()
        return write(file, data)

    monkeypatch.setattr("specscope.tracer.files.writer.os.write", nearly_full)
    writer.finish("complete")  # run_end is written, the checksum is not
    assert writer.broken
    assert len(warnings) == 1


@pytest.mark.parametrize("name", ["run.jsonl.zst", "run.xz", "run.jsonl.bz2"])
def test_a_compression_that_is_not_written_is_refused_before_anything_runs(tmp_path: Path, name: str) -> None:
    for opens in (check_writable, lambda p, overwrite: TraceWriter(p, overwrite=overwrite, warn=print)):
        with pytest.raises(UsageError, match=r"traces are written plain or as \.gz; name it run\..*gz"):
            opens(tmp_path / name, overwrite=False)
    assert list(tmp_path.iterdir()) == []


# What is read.


def test_streams_after_each_other_and_padding_are_one_text(tmp_path: Path) -> None:
    path = tmp_path / "joined.jsonl.gz"
    half = len(LINES) // 2
    parts = [gzip.compress(b"".join(LINES[:half])), gzip.compress(b"".join(LINES[half:])), bytes(512)]
    path.write_bytes(b"".join(parts))
    assert plain.plain_file(path).read_bytes() == FUSED.read_bytes()


@pytest.mark.parametrize("at", [12, 400, -6])
def test_damaged_data_is_refused_in_words(packed: Path, at: int) -> None:
    content = bytearray(packed.read_bytes())
    content[at] ^= 0x55
    packed.write_bytes(content)
    outcome = specscope("check", packed)
    assert outcome.code == 2
    assert str(packed) in outcome.err


def test_parts_are_of_bounded_size_however_well_they_are_compressed() -> None:
    size = 64 << 20
    source = io.BytesIO(gzip.compress(bytes(size), 9))
    lengths = [len(part) for part in plain._plain_parts(Path("x"), source)]
    assert max(lengths) <= plain.CHUNK_BYTES
    assert sum(lengths) == size


def test_a_file_is_decompressed_once_and_again_when_it_changes(tmp_path: Path, packed: Path) -> None:
    first = plain.plain_file(packed)
    assert plain.plain_file(packed) == first
    assert plain.plain_file(FUSED) == FUSED
    time.sleep(0.02)
    packed.write_bytes(gzip.compress(EAGER.read_bytes()))
    assert plain.plain_file(packed).read_bytes() == EAGER.read_bytes()
    others = [tmp_path / f"{number}.jsonl.gz" for number in range(plain.KEPT_COPIES + 2)]
    for other in others:
        other.write_bytes(gzip.compress(FUSED.read_bytes()))
    with TraceReader(others[0]) as reader:
        copies = [plain.plain_file(other) for other in others]
        assert [copy.exists() for copy in copies] == [False] * 2 + [True] * plain.KEPT_COPIES
        assert len(reader.turns) == 3  # who has it open reads on
    assert plain.plain_file(others[0]).read_bytes() == FUSED.read_bytes()


def test_no_room_for_the_copy_is_said(packed: Path) -> None:
    limited = f"ulimit -f 20; '{COMMAND}' check '{packed}'"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "no room for its plain text in" in done.stderr


def test_a_pipe_with_a_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match=r"no regular file; of a named pipe give - and redirect it"):
        TraceReader(tmp_path / "pipe")


def test_without_zstd_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.jsonl.zst"
    path.write_bytes(plain.ZSTD + b"rest")
    for name in ("compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TraceError, match=r"needs Python 3\.14 or the package zstandard; .* zstd -dc FILE \| specscope"):
        TraceReader(path)


def test_the_package_is_used_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for it, whose streams are zlib's after zstd's first bytes."""

    class Stream:
        def __init__(self) -> None:
            self.inner, self.head = zlib.decompressobj(), len(plain.ZSTD)
            self.eof, self.unused_data = False, b""

        def decompress(self, data: bytes) -> bytes:
            skipped, self.head = min(self.head, len(data)), max(0, self.head - len(data))
            part = self.inner.decompress(data[skipped:])
            self.eof, self.unused_data = self.inner.eof, self.inner.unused_data
            return part

    class ZstdDecompressor:
        def decompressobj(self) -> Stream:
            return Stream()

    package: Any = types.ModuleType("zstandard")
    package.ZstdDecompressor = ZstdDecompressor
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", package)
    path = tmp_path / "run.jsonl.zst"
    half = len(LINES) // 2
    path.write_bytes(b"".join(plain.ZSTD + zlib.compress(b"".join(part)) for part in (LINES[:half], LINES[half:])))
    assert check_trace(path).num_violations == 0


def test_real_zstd(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "run.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(FUSED.read_bytes()))
    assert plain.plain_file(path).read_bytes() == FUSED.read_bytes()
