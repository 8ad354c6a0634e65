"""Appends records to a trace: one line, one write; what is on disk is whole but for the line being written.

Knows records, not what they mean. Never raises into the run it observes once it is open: a full disk stops the trace,
not the decoding.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import xxhash

from specscope.schemas import AnyRecord, RunEnd, encode_record
from specscope.tracer.errors import UsageError


class RecordSink(Protocol):
    """Where records go, one after another."""

    @property
    def next_seq(self) -> int:
        """The number that the next record must carry."""

    def write(self, record: AnyRecord) -> None:
        """Appends one record."""


class TraceWriter:
    """Writes one trace file.

    Args:
        path: the file; its folder must exist.
        overwrite: whether an existing file may be replaced.
        warn: told once, in words, if the trace must be given up.

    Raises:
        UsageError: where the file exists and ``overwrite`` is off, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self._digest = xxhash.xxh3_128()
        self._counts: Counter[str] = Counter()
        self._given_up = False
        self._file: int | None = _open(path, overwrite)
        self.num_bytes = 0

    @property
    def broken(self) -> bool:
        """Whether the trace had to be given up."""
        return self._given_up

    @property
    def next_seq(self) -> int:
        """The number that the next record must carry."""
        return self._counts.total()

    def write(self, record: AnyRecord) -> None:
        """Appends one record."""
        if self._file is None:
            return
        line = encode_record(record)
        try:
            _write_all(self._file, line)
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
            os.close(self._file)
        except OSError as error:  # some file systems tell of a full disk only now
            self.give_up(error)
        self._file = None

    def give_up(self, error: OSError) -> None:
        """Writes nothing more, run_end neither: the trace is a truncated one. Warns, the first time."""
        if self._given_up:
            return
        self._given_up = True
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None
        self._warn(f"the trace {self.path} ends here: {error.strerror or error}; decoding goes on without it")


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Says at once what opening ``path`` for a trace would say later. Changes nothing.

    Raises:
        UsageError: as ``TraceWriter`` does.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already: choose another name, or pass --overwrite")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"cannot write {path}: permission denied")


def _open(path: Path, overwrite: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if overwrite else os.O_EXCL)
    try:
        return os.open(path, flags, 0o644)
    except FileExistsError:
        raise UsageError(f"{path} exists already: choose another name, or pass --overwrite") from None
    except FileNotFoundError:
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _write_all(file: int, line: bytes) -> None:
    """One write, repeated only where the system took less than the whole line."""
    view = memoryview(line)
    while view:
        view = view[os.write(file, view) :]
