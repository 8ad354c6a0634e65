"""The traces that a viewer may show: those in the files and folders of its command line, and no others.

A browser names a run; only a name that stands in the catalogue leads to a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: In one folder; the newest are kept.
MOST_RUNS = 1000


@dataclass(frozen=True)
class Run:
    """One file, and the name by which links call it."""

    name: str
    path: Path


class Catalogue:
    """The runs below some files and folders. Folders are read anew at every call: a run may still be writing there.

    Args:
        given: files, which keep their order, and folders, whose ``*.jsonl`` follow, the newest first.
    """

    def __init__(self, given: Sequence[Path]) -> None:
        self.given = tuple(path.resolve() for path in given)

    @property
    def folders(self) -> list[Path]:
        """The folders among what was given."""
        return [path for path in self.given if path.is_dir()]

    def runs(self) -> list[Run]:
        """All runs. A name is the file's own, with as many of the folders above it as it takes to tell it from others."""
        paths: dict[Path, None] = {}
        for place in self.given:
            paths.update(dict.fromkeys(_traces_in(place) if place.is_dir() else [place]))
        return _named(list(paths))

    def find(self, name: str) -> Run | None:
        """The run of that name; None where there is none."""
        return next((run for run in self.runs() if run.name == name), None)


def _traces_in(folder: Path) -> list[Path]:
    """Every ``*.jsonl`` in and below ``folder``, the newest first; what a link leads to outside is left out."""
    found = []
    for path in folder.rglob("*.jsonl"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and path.resolve().is_relative_to(folder):
            found.append(path)
    return sorted(found, key=lambda path: (-path.stat().st_mtime, path))[:MOST_RUNS]


def _named(paths: Sequence[Path]) -> list[Run]:
    runs = []
    for path in paths:
        parts = 1
        while any(other != path and other.parts[-parts:] == path.parts[-parts:] for other in paths):
            parts += 1
        runs.append(Run("/".join(path.parts[-parts:]), path))
    return runs
