"""The plain text of what is read: compressed files, standard input and pipes are copied to a temporary file first.

Reading goes to and fro in a file, which neither can. A copy is deleted when the process ends; of compressed files the
last few are kept meanwhile, so that one that is opened again is not decompressed again. Memory does not depend on their
size, room on the disk of temporary files does. Compression is told by a file's first bytes, not by its name.

A compressed file that was cut off, as one whose writer was killed, is read as far as it goes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from specscope.tracer.errors import TraceError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
GZIP_WINDOW = 31  # of zlib: the largest, with gzip's header and checksum
CHUNK_BYTES = 1 << 20
KEPT_COPIES = 4
STANDARD_INPUT = Path("-")


class _Copy(NamedTuple):
    """A temporary file with the plain text of another."""

    path: Path
    again: bool  # whether it could be made again


class _Decompressor(Protocol):
    """One compressed stream of those that a file may hold after each other."""

    @property
    def eof(self) -> bool:
        """Whether its end was read."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was read after its end."""
        ...

    def decompress(self, data: bytes, /) -> bytes:
        """What follows by ``data``."""
        ...


_copies: dict[tuple[object, ...], _Copy] = {}
_lock = threading.Lock()


def plain_file(path: Path) -> Path:
    """The file with the plain text of ``path``: itself, or a copy where it is compressed, ``-`` or a pipe.

    Raises:
        TraceError: where it cannot be read, is damaged, or there is no room for the copy.
    """
    with _lock:
        try:
            if path == STANDARD_INPUT:
                return _copied(path, ("-",), again=False)
            status = path.stat()
            if stat.S_ISFIFO(status.st_mode) and _is_open_already(path):
                return _copied(path, (str(path), status.st_ino), again=False)
            if not stat.S_ISREG(status.st_mode):
                raise TraceError(path, _no_file(status.st_mode))
            with path.open("rb") as file:
                start = file.read(len(ZSTD))
            if not start.startswith((GZIP, ZSTD)):
                return path
            return _copied(path, (str(path.resolve()), status.st_size, status.st_mtime_ns), again=True)
        except FileNotFoundError:
            raise TraceError(path, "no such file") from None
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from None


def _is_open_already(path: Path) -> bool:
    """Whether the shell has opened it for this process. A pipe with a name may be one that nobody ever writes to."""
    return str(path).startswith(("/dev/fd/", "/proc/self/fd/")) or str(path) == "/dev/stdin"


def _no_file(mode: int) -> str:
    what = "cannot be read: it is no regular file"
    return f"{what}; of a named pipe give - and redirect it: specscope check - < PIPE" if stat.S_ISFIFO(mode) else what


def _copied(path: Path, key: tuple[object, ...], *, again: bool) -> Path:
    if key in _copies and _copies[key].path.exists():
        return _copies[key].path
    descriptor, name = tempfile.mkstemp(prefix=f"{len(_copies)}-", suffix=".jsonl", dir=_folder())
    copy = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as target, _opened(path) as source:
            for part in _plain_parts(path, source):
                try:
                    target.write(part)
                except OSError as error:
                    raise TraceError(path, f"no room for its plain text in {copy.parent}: {error.strerror}") from None
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    _copies[key] = _Copy(copy, again)
    _forget_old()
    return copy


@cache
def _folder() -> str:
    """Of the copies; deleted when the process ends."""
    holder = tempfile.TemporaryDirectory(prefix="specscope-")
    _holders.append(holder)
    return holder.name


_holders: list[tempfile.TemporaryDirectory[str]] = []


def _forget_old() -> None:
    """Deletes all but the last copies of those that could be made again. Who has one open reads on."""
    remade = [key for key, copy in _copies.items() if copy.again]
    for key in remade[:-KEPT_COPIES]:
        with contextlib.suppress(OSError):
            _copies.pop(key).path.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path != STANDARD_INPUT:
        with path.open("rb") as file:
            yield file
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise TraceError(path, "standard input is a terminal, wanted a trace: specscope check - < FILE")
    yield sys.stdin.buffer


def _plain_parts(path: Path, source: BinaryIO) -> Iterator[bytes]:
    """The plain text of ``source``, in parts of bounded size."""
    start = source.read(len(ZSTD))
    if start.startswith(GZIP):
        yield from _decompressed(path, start, source, _Gzip)
    elif start.startswith(ZSTD):
        yield from _decompressed(path, start, source, _zstd(path))
    else:
        yield start
        while part := source.read(CHUNK_BYTES):
            yield part


class _Gzip:
    """A gzip stream, in parts of bounded size however well it is compressed."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def waiting(self) -> bytes:
        """What was given and not yet used."""
        return self._stream.unconsumed_tail

    def decompress(self, data: bytes, /) -> bytes:
        return self._stream.decompress(data, CHUNK_BYTES)


def _decompressed(path: Path, data: bytes, source: BinaryIO, begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Streams that follow each other, as far as they go; zeros after the last are padding."""
    stream = begin()
    try:
        while data:
            yield stream.decompress(data)
            data = stream.waiting if isinstance(stream, _Gzip) else b""
            if stream.eof:
                data = stream.unused_data.lstrip(b"\0") or source.read(CHUNK_BYTES).lstrip(b"\0")
                stream = begin()
            elif not data:
                data = source.read(CHUNK_BYTES)
        while isinstance(stream, _Gzip) and (rest := stream.decompress(b"")):
            yield rest
    except TraceError:
        raise
    except Exception as error:  # each library has its own
        raise TraceError(path, f"its compressed data is damaged: {error}") from None


def _zstd(path: Path) -> Callable[[], _Decompressor]:
    """What begins a zstd stream.

    Raises:
        TraceError: where neither Python nor a package has it.
    """
    with contextlib.suppress(ImportError):
        from compression.zstd import ZstdDecompressor  # type: ignore[import-not-found, unused-ignore]

        begin: Callable[[], _Decompressor] = ZstdDecompressor
        return begin
    with contextlib.suppress(ImportError):
        import zstandard  # type: ignore[import-not-found, unused-ignore]

        return lambda: zstandard.ZstdDecompressor().decompressobj()  # type: ignore[no-any-return, unused-ignore]
    raise TraceError(
        path,
        "it is compressed by zstd, which needs Python 3.14 or the package zstandard; install that, or decompress it "
        "on the way: zstd -dc FILE | specscope check -",
    )
