"""The traces that a viewer may show: those in the files and folders of its command line, and no others.

A browser names a run; only a name that is in the catalogue leads to a file. No name is ever made into a path.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

#: Runs of one folder at most; the newest are kept.
MOST_RUNS = 1000
#: Files and folders that are visited below one folder, the nearest first: the viewer may be started anywhere.
MOST_ENTRIES = 50_000
#: A folder's list stays valid for this long, and for this many times the time that it took to make.
FRESH_SECONDS, FRESH_TIMES = 1.0, 10.0


@dataclass(frozen=True)
class Run:
    """One file, and the name by which links call it."""

    name: str
    path: Path


@dataclass(frozen=True)
class Listing:
    """The traces below one folder."""

    paths: tuple[Path, ...] = ()  # the newest first
    is_whole: bool = True  # False where there is more than is visited


@dataclass
class _Kept:
    """A listing, until it is stale."""

    listing: Listing
    good_until: float  # of the monotonic clock, in seconds


@dataclass
class _Shelf:
    """The listings of this process: every key press asks for them, and each session has its own catalogue."""

    kept: dict[Path, _Kept] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def listing(self, folder: Path) -> Listing:
        """What is below ``folder``, as it is now or was a moment ago."""
        with self.lock:
            began = time.monotonic()
            kept = self.kept.get(folder)
            if kept is None or kept.good_until < began:
                listing = list_folder(folder)
                now = time.monotonic()
                kept = _Kept(listing, now + max(FRESH_SECONDS, FRESH_TIMES * (now - began)))
                self.kept[folder] = kept
            return kept.listing


_SHELF = _Shelf()


class Catalogue:
    """The runs among some files and folders. Folders are read again, at most once a second: a run may still be writing.

    Args:
        given: files and folders; a path that is given twice counts once.
    """

    def __init__(self, given: Sequence[Path]) -> None:
        places: dict[Path, Path] = {}
        for place in given:
            places.setdefault(_followed(place), _absolute(place))
        self.given = tuple(places.values())

    @property
    def folders(self) -> list[Path]:
        """The folders among what was given."""
        return [path for path in self.given if path.is_dir()]

    @property
    def files(self) -> list[Path]:
        """The others."""
        return [path for path in self.given if not path.is_dir()]

    @property
    def is_whole(self) -> bool:
        """Whether every trace below the folders is among the runs: there may be too many to visit."""
        return all(_SHELF.listing(folder).is_whole for folder in self.folders)

    def runs(self) -> list[Run]:
        """All runs: the files in the order given, then those of each folder, the newest first.

        The name is the file's own; below a folder that was given, it is the path from there, so that no file that is
        added there changes it. Where two would be equal, as many parent folders precede it as tell them apart.
        """
        return list(self._runs.values())

    def find(self, name: str) -> Run | None:
        """The run of that name, or the only run whose path ends in it: a link outlives a name that has become longer.
        None where there is none, or more than one."""
        runs = self._runs
        if name in runs:
            return runs[name]
        ending = os.sep + name
        alike = [run for run in runs.values() if _tail(run.path, len(run.path.parts)).endswith(ending)]
        return alike[0] if name and len(alike) == 1 else None

    @property
    def _runs(self) -> dict[str, Run]:
        files = self.files
        known = {*files, *(_followed(path) for path in files)}
        below = [path for folder in self.folders for path in _SHELF.listing(folder).paths if path not in known]
        return named((*files, *dict.fromkeys(below)), tuple(self.folders))


def _absolute(place: Path) -> Path:
    """With every link but the last followed: a file keeps the name by which it was given."""
    return _followed(place) if place.is_dir() else _followed(place.parent) / place.name


def _followed(place: Path) -> Path:
    """With every link followed, as far as there is an end to it."""
    return Path(os.path.realpath(place))


class _DatedFile(NamedTuple):
    """A file and its age."""

    written: float  # in seconds
    path: Path


def list_folder(folder: Path) -> Listing:
    """Every ``*.jsonl`` in and below ``folder`` but hidden ones; links to files outside are left out."""
    files: list[_DatedFile] = []
    num_seen = 0
    for entry in _entries_below(folder):
        num_seen += 1
        if num_seen > MOST_ENTRIES:
            break
        if not entry.name.endswith(".jsonl"):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or a link in a circle
            path = Path(entry.path)
            if entry.is_file() and (not entry.is_symlink() or path.resolve().is_relative_to(folder)):
                files.append(_DatedFile(entry.stat().st_mtime, path))
    files.sort(key=lambda file: (-file.written, file.path))
    is_whole = num_seen <= MOST_ENTRIES and len(files) <= MOST_RUNS
    return Listing(tuple(file.path for file in files[:MOST_RUNS]), is_whole)


def _entries_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All but what is hidden, the nearest first. No link to a folder is followed."""
    waiting = deque([str(folder)])
    while waiting:
        try:
            with os.scandir(waiting.popleft()) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:  # gone meanwhile, or not readable
            continue
        for entry in visible:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            yield entry


@lru_cache(maxsize=16)
def named(paths: tuple[Path, ...], folders: tuple[Path, ...] = ()) -> dict[str, Run]:
    """Runs by name, for different paths: each from the nearest of ``folders`` on, or longer to tell it from others."""
    names: dict[Path, str] = {}
    unnamed = {path: _shortest(path, folders) for path in paths}
    num_parts = 1
    while unnamed:
        alike: dict[str, list[Path]] = {}
        for path, shortest in unnamed.items():
            if shortest <= num_parts:
                alike.setdefault(_tail(path, num_parts), []).append(path)
        for name, group in alike.items():
            if len(group) == 1:
                names[group[0]] = name
            elif num_parts >= max(
                len(path.parts) for path in group
            ):  # names that are not valid text, and equal as text
                names |= {path: f"{name} ({number})" for number, path in enumerate(group, 1)}
        unnamed = {path: parts for path, parts in unnamed.items() if path not in names}
        num_parts += 1
    return {names[path]: Run(names[path], path) for path in paths}


def _shortest(path: Path, folders: tuple[Path, ...]) -> int:
    """How many of its last parts name a file, if no other has the same name."""
    depths = [len(folder.parts) for folder in folders if path.is_relative_to(folder)]
    return len(path.parts) - max(depths) if depths else 1


def _tail(path: Path, num_parts: int) -> str:
    """The last parts, as text that any link can hold: a name on disk may be bytes that are not valid text."""
    return str(Path(*path.parts[-num_parts:])).encode("utf-8", "backslashreplace").decode("utf-8")
