"""Standard output and error whose reader may leave at any moment, as ``| head`` and ``| grep -q`` do.

What a command prints behind that moment is dropped, and the command goes on to its end: its exit code is its verdict,
and a closed pipe is none. Left to click and rich, it would be 1, which says that two traces differ.

A character that their encoding does not have, as cp1252 and cp437 do not have a tick, is written in ASCII: our own
signs as look-alikes, anything else as an escape.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EXIT_BROKEN_PIPE = 141  # as a shell reports SIGPIPE
#: The error handler of streams for what their encoding does not have.
IN_ASCII = "specscope.in-ascii"
LOOK_ALIKES = {"✓": "*", "→": "->", "…": "...", "≠": "!=", "·": "."}


class DeafWriter(io.BufferedWriter):
    """A buffer before a file descriptor that takes everything, and drops it once nobody reads.

    Not a file below the buffer: an exception that a signal raises between its write and its return would leave in the
    buffer what was written, and it would be written again.
    """

    reader_is_gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Takes ``data`` and writes what the buffer does not hold, as far as somebody reads it; how many bytes."""
        if not self.reader_is_gone:
            try:
                return super().write(data)
            except BrokenPipeError:
                self.reader_is_gone = True
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Writes what is held, as far as somebody reads it."""
        if not self.reader_is_gone:
            try:
                super().flush()
            except BrokenPipeError:
                self.reader_is_gone = True


def outlive_readers() -> None:
    """Puts standard output and error before such buffers. One that was closed from the start is dropped as a whole."""
    sys.stdout = _deaf(sys.stdout)
    sys.stderr = _deaf(sys.stderr)


def output_is_read() -> bool:
    """Whether somebody may still read standard output, as far as the last write to it told."""
    writer = getattr(sys.stdout, "buffer", None)
    return not (isinstance(writer, DeafWriter) and writer.reader_is_gone)


def drop_output() -> None:
    """Drops what standard output still holds and will be given: it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _deaf(stream: TextIO | None) -> TextIO:
    """``stream`` with its encoding and buffering on a ``DeafWriter``."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")  # for as long as the process lives
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # it stands for no file: a test's, or a notebook's
        return stream
    stream.flush()
    return io.TextIOWrapper(
        DeafWriter(io.FileIO(descriptor, "w", closefd=False)),
        encoding=stream.encoding,
        errors=IN_ASCII if stream.errors == "strict" else stream.errors,
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that an encoding does not have, and where the encoder goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    escaped = (LOOK_ALIKES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters)
    return "".join(escaped), error.end


codecs.register_error(IN_ASCII, _in_ascii)
