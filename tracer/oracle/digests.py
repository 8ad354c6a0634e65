"""Digests of a file as it is read, and whether only its line ends were changed."""

from __future__ import annotations

from typing import NamedTuple

import xxhash

#: What is said where a file's digest fits but for its line ends.
CONVERTED = (
    "; only the line ends are others: a transfer made CRLF of LF. Nothing else has changed; turn them back with "
    "sed -i 's/\\r$//' FILE"
)


class Digests(NamedTuple):
    """Of every byte so far."""

    as_is: str
    with_lf: str | None  # as if lines that end in CRLF ended in LF; None where the first one does not


class RunningDigests:
    """Digests a file line by line."""

    def __init__(self) -> None:
        self._as_is = xxhash.xxh3_128()
        self._with_lf: xxhash.xxh3_128 | None = None
        self._is_first = True

    def update(self, line: bytes) -> None:
        """Takes in the next line, its end included."""
        self._as_is.update(line)
        if self._is_first and line.endswith(b"\r\n"):
            self._with_lf = xxhash.xxh3_128()
        self._is_first = False
        if self._with_lf is not None:
            self._with_lf.update(line[:-2] + b"\n" if line.endswith(b"\r\n") else line)

    def digests(self) -> Digests:
        """The digests so far."""
        return Digests(self._as_is.hexdigest(), None if self._with_lf is None else self._with_lf.hexdigest())
