"""What the oracle reports of whole traces, kept for the list of runs, which cannot wait until all are read.

Knows no pages, and no Streamlit: all sessions share what is kept. It is kept by what the file looked like, so that a
file that has changed is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.naming.text import shorten
from specscope.tracer.oracle.check import check_trace
from specscope.viewer.runs.summary import Checked, checked

#: Larger files are checked only on request. No further file is begun once the page has waited this long: the rest, and
#: what is not small, is checked while the page is looked at.
CHECK_BYTES, CHECK_SECONDS, SMALL_BYTES = 16 << 20, 0.5, 2_000_000
MOST_KEPT = 4096
LONGEST_PROBLEM = 160  # characters


class Stamp(NamedTuple):
    """What a file looked like."""

    path: Path
    num_bytes: int
    modified_ns: int
    changed_ns: int


def stamp_of(path: Path) -> Stamp | None:
    """The stamp as it is now; None where the file has vanished, or may not be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Stamp(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Checks:
    """Reports by what the file looked like before it was read."""

    def __init__(self) -> None:
        self._kept: dict[Stamp, Checked | None] = {}  # None: it cannot be read
        self._lock = Lock()
        self._waiting: dict[Stamp, None] = {}  # in the order in which they are checked
        self._worker: Thread | None = None

    def keep(self, stamp: Stamp, report: Checked | None) -> None:
        """Keeps a report; when there are too many, the oldest is forgotten."""
        with self._lock:
            self._kept[stamp] = report
            while len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]

    def known(self, stamp: Stamp) -> Checked | None:
        """The report on that file; None where it was not checked, or cannot be read."""
        with self._lock:
            return self._kept.get(stamp)

    def check_later(self, stamps: Iterable[Stamp]) -> int:
        """Checks those of the files that are not known and not too large, one after another, while others work; how
        many these are. Asked for again, it forgets those that are wanted no more."""
        with self._lock:
            wanted = [stamp for stamp in stamps if stamp not in self._kept and stamp.num_bytes <= CHECK_BYTES]
            self._waiting = dict.fromkeys(wanted)
            if wanted and (self._worker is None or not self._worker.is_alive()):
                self._worker = Thread(target=self._work, daemon=True)
                self._worker.start()
        return len(wanted)

    @property
    def num_waiting(self) -> int:
        """Files that are still to be checked."""
        with self._lock:
            return len(self._waiting)

    def _work(self) -> None:
        while True:
            with self._lock:
                stamp = next(iter(self._waiting), None)
                if stamp is None:
                    self._worker = None
                    return
            report = _asked(stamp.path)
            self.keep(stamp, report)
            with self._lock:
                self._waiting.pop(stamp, None)

    def check(self, stamps: Iterable[Stamp]) -> None:
        """Checks those of the files that are small and not known, as many as the time allows."""
        until = time.monotonic() + CHECK_SECONDS
        for stamp in stamps:
            if time.monotonic() >= until:
                return
            with self._lock:
                is_known = stamp in self._kept
            if not is_known and stamp.num_bytes <= min(SMALL_BYTES, CHECK_BYTES):
                self.keep(stamp, _asked(stamp.path))


def _asked(path: Path) -> Checked | None:
    try:
        return checked(check_trace(path))
    except SpecScopeError as error:
        reason = str(error).removeprefix(str(path)).lstrip(",: ")
        return Checked(0, 0, problem=shorten(f"damaged: {reason}", LONGEST_PROBLEM))
    except OSError:
        return None


#: Of this process.
CHECKS = Checks()
