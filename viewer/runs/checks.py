"""What the oracle found in whole traces, kept for the list of runs: there nobody can wait for it to read them all.

Knows no pages, and no Streamlit: what is kept is shared by all who look. Kept by what the file looked like, so that one
that has changed is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.oracle.check import check_trace
from specscope.viewer.runs.summary import Checked, checked

#: Larger files are not checked unless somebody asks; nor is another begun when the page has waited so long.
CHECK_BYTES, CHECK_SECONDS = 2_000_000, 0.5
MOST_KEPT = 4096


class Stamp(NamedTuple):
    """What a file looked like."""

    path: Path
    num_bytes: int
    modified_ns: int
    changed_ns: int


def stamp_of(path: Path) -> Stamp | None:
    """None where the file has vanished, or is not ours to see."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Checks:
    """What was found, by what the file looked like before it was read."""

    def __init__(self) -> None:
        self._kept: dict[Stamp, Checked | None] = {}  # None: it cannot be read
        self._lock = Lock()

    def keep(self, stamp: Stamp, found: Checked | None) -> None:
        """Keeps what was found; of too many, the oldest is forgotten."""
        with self._lock:
            self._kept[stamp] = found
            while len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]

    def known(self, stamp: Stamp) -> Checked | None:
        """What was found in that file; None where nobody asked, or it cannot be read."""
        with self._lock:
            return self._kept.get(stamp)

    def check(self, stamps: Iterable[Stamp]) -> None:
        """Asks the oracle about those of the files that are small and not known, as many as the time allows."""
        until = time.monotonic() + CHECK_SECONDS
        for stamp in stamps:
            if time.monotonic() >= until:
                return
            with self._lock:
                is_known = stamp in self._kept
            if not is_known and stamp.num_bytes <= CHECK_BYTES:
                self.keep(stamp, _asked(stamp.path))


def _asked(path: Path) -> Checked | None:
    try:
        return checked(check_trace(path))
    except (SpecScopeError, OSError):
        return None


#: Of this process.
CHECKS = Checks()
