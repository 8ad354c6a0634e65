"""What ties a rank to the process that launched it: signs of life, the reason of its end, and no life after its parent.

All of it is small files in one temporary folder, so that it works before torch is loaded and after a crash. A rank that
was started by ``torchrun`` itself has no such folder: everything here then does nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

FOLDER_VARIABLE = "SPECSCOPE_RANKS_FOLDER"  # the launcher's, where ranks say what they say
BEAT_S = 0.5
GROUP_FILE = "group"  # where the ranks find each other

Activity = Literal["starting", "waiting", "prefill", "decoding"]


class LastWords(NamedTuple):
    """Why a rank ended."""

    message: str
    exit_code: int
    is_common: bool  # every rank meets it alike: the user's mistake, or what all of them found
    is_echo: bool  # only because another rank ended


class SignOfLife(NamedTuple):
    """What a rank says of itself from time to time."""

    pid: int
    beat: int  # counts up
    activity: str
    busy_s: float  # since it last looked for work; 0 where that says nothing


class Lifeline:
    """One rank's. A thread gives the signs of life, so that a long forward or a slow reader of the output is no death;
    a stage that is stuck in its work is told by how long it has been busy."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._activity: Activity = "starting"
        self._looked_s: float | None = None
        self._parent = os.getppid()
        self._beats, self._signing = itertools.count(), threading.Lock()
        folder = os.environ.get(FOLDER_VARIABLE)
        self.folder = Path(folder) if folder else None
        if self.folder is not None:
            threading.Thread(target=self._beat, args=(self.folder,), name="signs of life", daemon=True).start()

    def looked(self) -> None:
        """The stage looks for work: it is not stuck."""
        self._looked_s = time.monotonic()

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Inside, the rank waits for what is not the pipeline's, such as who reads its output: that may take long."""
        self._looked_s = None
        try:
            yield
        finally:
            self.looked()

    def turn_to(self, activity: Activity) -> None:
        """What the rank does from now on."""
        if activity != self._activity:
            self._activity = activity
            if self.folder is not None:
                self._sign(self.folder)

    def leave(self, words: LastWords) -> bool:
        """Says why the rank ends; whether anybody listens."""
        if self.folder is None:
            return False
        _write(_end_file(self.folder, self.rank), words)
        return True

    def _beat(self, folder: Path) -> None:
        while True:
            try:
                self._sign(folder)
            except OSError:
                os._exit(1)  # the launcher took its folder away: nobody is left to be told
            if os.getppid() != self._parent:
                os._exit(1)
            time.sleep(BEAT_S)

    def _sign(self, folder: Path) -> None:
        looked_s = self._looked_s
        busy_s = time.monotonic() - looked_s if looked_s is not None else 0.0
        with self._signing:
            sign = SignOfLife(os.getpid(), next(self._beats), self._activity, busy_s)
            _write(_life_file(folder, self.rank), sign)


class Watch:
    """The launcher's side: what the ranks say."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def life(self, rank: int) -> SignOfLife | None:
        """The last sign of ``rank``; None before the first."""
        values = _read(_life_file(self._folder, rank))
        return SignOfLife(*values) if values is not None else None

    def last_words(self, rank: int) -> LastWords | None:
        """Why ``rank`` ended; None where it did not say."""
        values = _read(_end_file(self._folder, rank))
        return LastWords(*values) if values is not None else None


def _life_file(folder: Path, rank: int) -> Path:
    return folder / f"life-{rank}.json"


def _end_file(folder: Path, rank: int) -> Path:
    return folder / f"end-{rank}.json"


def _write(path: Path, values: LastWords | SignOfLife) -> None:
    """Whole, or not at all."""
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(values), encoding="utf-8")
    written.replace(path)


def _read(path: Path) -> list[Any] | None:
    try:
        values: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return values
