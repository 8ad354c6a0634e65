"""Appends records to a trace: one line, one write; what is on disk is whole except for the line being written.

A trace whose name ends with ``.gz`` is compressed as it is written, and flushed after each record: what was written
before a kill can be read.

Knows records, not what they mean. Never raises into the run it observes once it is open: a full disk stops the trace,
not the decoding. The caller asks at the end, with ``check_whole``. While it is open, nobody else writes the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol
from weakref import WeakSet

import xxhash

from specscope.schemas import AnyRecord, RunEnd, encode_record
from specscope.tracer.errors import FileTakenError, TraceLostError, UsageError
from specscope.tracer.files.locks import in_use, refuse_if_locked, try_lock
from specscope.tracer.files.plain import GZIP_WINDOW

GZIP_LEVEL = 1  # the fastest: a record is compressed in the decoder's time
#: Compressions that a name may promise and that are not written.
UNWRITTEN = frozenset({".zst", ".zstd", ".xz", ".bz2", ".lz4", ".br", ".zip", ".7z"})


class RecordSink(Protocol):
    """Where records go, one after another."""

    @property
    def next_seq(self) -> int:
        """The number that the next record must carry."""
        ...

    def write(self, record: AnyRecord) -> None:
        """Appends one record."""


class RunSink(RecordSink, Protocol):
    """Where one run's records go, from the manifest to its end."""

    path: Path

    @property
    def broken(self) -> bool:
        """Whether the trace had to be given up."""
        ...

    def finish(self, reason: Literal["complete", "interrupted", "failed"]) -> None:
        """The run has ended."""

    def check_whole(self) -> None:
        """Says that what was written is not whole.

        Raises:
            TraceLostError: where it is not.
        """


class TraceWriter:
    """Writes one trace file.

    Args:
        path: the file; its folder must exist.
        overwrite: whether an existing file may be replaced.
        warn: told once, in words, if the trace must be given up.

    Raises:
        UsageError: where the file exists and ``overwrite`` is off, cannot be written, another writer has it open, or
            its name is that of a compression which is only read.
    """

    def __init__(self, path: Path, *, overwrite: bool, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self._digest = xxhash.xxh3_128()
        self._counts: Counter[str] = Counter()
        self._problem: str | None = None  # why the trace was given up
        self._folders: list[int] = []  # that are held beside the file
        self._file: int | None = None
        self._stream = _stream_of(path)
        self._file = _open(path, overwrite)
        _WRITING.add(self)
        self.num_bytes = 0

    @property
    def broken(self) -> bool:
        """Whether the trace had to be given up."""
        return self._problem is not None

    @property
    def next_seq(self) -> int:
        """The number that the next record must carry."""
        return self._counts.total()

    def has_open(self, file: os.stat_result) -> bool:
        """Whether it is ``file`` that this one has open."""
        return self._file is not None and os.path.samestat(os.fstat(self._file), file)

    def hold(self, folder: Path) -> None:
        """Keeps other writers out of ``folder`` until this one has ended.

        Raises:
            UsageError: where another one is in it, or it cannot be opened.
        """
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise UsageError(f"cannot open the folder {folder}: {error.strerror}") from None
        self._folders.append(descriptor)
        if not try_lock(descriptor):
            raise in_use(folder)

    def check_whole(self) -> None:
        """Says once more, when all is over, that the trace is not whole.

        Raises:
            TraceLostError: where it had to be given up.
        """
        if self._problem is not None:
            raise TraceLostError(
                f"the trace {self.path} is incomplete: {self._problem}; what was decoded is whole; "
                "make room or choose another place, and record it again"
            )

    def write(self, record: AnyRecord) -> None:
        """Appends one record."""
        if self._file is None:
            return
        line = encode_record(record)
        try:
            _write_all(self._file, self._stream.add(line))
        except OSError as error:
            self.give_up(error)
            return
        self._digest.update(line)
        self._counts[record.kind] += 1
        self.num_bytes += len(line)

    def finish(self, reason: Literal["complete", "interrupted", "failed"]) -> None:
        """Writes ``run_end`` and closes. A file without it is a truncated run."""
        if self._file is None:
            return
        self.write(RunEnd(seq=self.next_seq, reason=reason, counts=dict(self._counts), digest=self._digest.hexdigest()))
        if self._file is None:
            return
        if os.fstat(self._file).st_nlink == 0:
            self.give_up(FileNotFoundError(errno.ENOENT, "the file was removed while it was written"))
            return
        try:
            _write_all(self._file, self._stream.end())
            self._close()
        except OSError as error:  # some file systems tell of a full disk only now
            self.give_up(error)

    def leave(self) -> None:
        """Closes without ``run_end``: what is there is the beginning of a run."""
        with contextlib.suppress(OSError):
            self._close()

    def give_up(self, error: OSError) -> None:
        """Writes nothing more, run_end neither: the trace is a truncated one. Warns, the first time."""
        if self._problem is not None:
            return
        self._problem = error.strerror or str(error)
        with contextlib.suppress(OSError):
            self._close()
        self._warn(f"the trace {self.path} ends here: {self._problem}; decoding goes on without it")

    def _close(self) -> None:
        """Closes what is open, and so lets others write it."""
        for folder in self._folders:
            os.close(folder)
        self._folders = []
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __del__(self) -> None:
        """A writer that is dropped before its end keeps nobody out."""
        with contextlib.suppress(OSError):
            self._close()


#: The writers of this process.
_WRITING: WeakSet[TraceWriter] = WeakSet()


class _Plain:
    """Lines as they are."""

    def add(self, line: bytes) -> bytes:
        """What to write for ``line``."""
        return line

    def end(self) -> bytes:
        """What to write at the end."""
        return b""


class _Gzip(_Plain):
    """Lines as one gzip stream, each of them readable once it is written."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW)

    def add(self, line: bytes) -> bytes:
        """What to write for ``line``: all of it, so that a reader need not wait for the next one."""
        return self._stream.compress(line) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """The checksum of all lines."""
        return self._stream.flush()


def _stream_of(path: Path) -> _Plain:
    """How a trace of that name is written.

    Raises:
        UsageError: where the name promises a compression that is not written.
    """
    if path.suffix in UNWRITTEN:
        raise UsageError(
            f"cannot write {path}: traces are written plain or as .gz; name it {path.with_suffix('.gz').name}, or "
            "compress it when it is whole (.zst can be read)"
        )
    return _Gzip() if path.suffix == ".gz" else _Plain()


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Says at once what opening ``path`` for a trace would say later. Changes nothing.

    Raises:
        UsageError: as ``TraceWriter`` does.
    """
    if path.exists() and not overwrite:
        raise FileTakenError(path)
    _stream_of(path)
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"cannot write {path}: permission denied")
    refuse_if_locked(path)


def _open(path: Path, overwrite: bool) -> int:
    """The file, empty, and nobody else's to write."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if overwrite else os.O_EXCL), 0o644)
    except FileExistsError:
        raise FileTakenError(path) from None
    except FileNotFoundError:
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):  # a device or a pipe is nobody's alone
            _claim(file, path)
    except BaseException:
        os.close(file)
        raise
    return file


def _claim(file: int, path: Path) -> None:
    """Empties the file once it is ours: until then it may be another run's."""
    if not try_lock(file):
        raise in_use(path, here=any(writer.has_open(os.fstat(file)) for writer in list(_WRITING)))
    try:
        os.ftruncate(file, 0)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _write_all(file: int, line: bytes) -> None:
    """One write, repeated only where the system took less than the whole line."""
    view = memoryview(line)
    while view:
        view = view[os.write(file, view) :]
