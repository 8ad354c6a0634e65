"""The results of many pairs: one JSON line per pair, appended as it is known, so that a run can be resumed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from specscope.schemas.pair_result import RESULT_SCHEMA, FirstRoot, PairResult
from specscope.schemas.verdict import Verdict
from specscope.tracer.errors import DamagedRecordError, TraceError, UsageError
from specscope.tracer.files.plain import plain_file
from specscope.tracer.report.card import leading_root

try:
    import fcntl
except ImportError:  # there is none on Windows: nothing keeps two processes from one results file there
    fcntl = None  # type: ignore[assignment]


def first_root(verdict: Verdict) -> FirstRoot | None:
    """The root that a verdict's card is about; None where it is about none."""
    root = leading_root(verdict)
    if root is None:
        return None
    difference = root.difference
    return FirstRoot(place=root.place, phase=difference.phase, field=difference.field, kind=difference.kind)


def read_results(path: Path) -> dict[str, PairResult]:
    """The last result of each pair by its name, in the order of the file. A torn last line is left out.

    Raises:
        UsageError: where the file cannot be read or a whole line is no result.
    """
    content = _read(path)
    results: dict[str, PairResult] = {}
    whole = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            result = PairResult.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(map(str, problem["loc"]))
            what = f"{place}: {problem['msg']}" if place else problem["msg"]
            raise DamagedRecordError(f"{path}, line {number}: no result of specscope diff-many ({what})") from None
        results.pop(result.name, None)
        results[result.name] = result
    return results


def _read(path: Path) -> bytes:
    try:
        return plain_file(path).read_bytes()
    except TraceError as error:
        raise UsageError(f"cannot read the results {error}") from None
    except OSError as error:
        raise UsageError(f"cannot read the results {path}: {error.strerror}") from None


def torn_bytes(path: Path) -> int:
    """How many bytes stand after the last whole line: of a line that is being written, or never was to its end.

    Raises:
        UsageError: where the file cannot be read.
    """
    content = _read(path)
    return len(content) - content.rfind(b"\n") - 1


class Results:
    """A file of results that is open for appending, and no other process's at the same time."""

    def __init__(self, file: BinaryIO, known: dict[str, PairResult]) -> None:
        self._file = file
        self.known = known  # what was there, by name

    def add(self, result: PairResult) -> None:
        """Appends one result; it is with the system when this returns."""
        line = result.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise UsageError(f"cannot write {self._file.name}: {error.strerror}; run again to go on") from None


@contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """Opens ``path`` to continue with it: what it holds is read, and a torn last line cut off.

    Raises:
        UsageError: where it holds something else, cannot be written, or another process writes it.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"cannot write {path}: it is no regular file")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist")
    try:
        file = path.open("a+b")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    with file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process writes {path}: wait for it, or choose another file") from None
        except OSError as error:
            raise UsageError(f"cannot lock {path}: {error.strerror}; choose a file on another disk") from None
        known = read_results(path)
        _cut_torn_line(path, file, known)
        yield Results(file, known)


def _cut_torn_line(path: Path, file: BinaryIO, known: dict[str, PairResult]) -> None:
    """Cuts what is after the last newline; but not from a file without any whole line that looks like none of ours."""
    content = path.read_bytes()
    kept = content.rfind(b"\n") + 1
    start = f'{{"schema":"{RESULT_SCHEMA}"'.encode()
    torn = content[kept:]
    if torn and not known and not torn.startswith(start[: len(torn)]):
        raise UsageError(f"{path} holds no results of specscope diff-many: choose another file")
    if torn:
        os.truncate(file.fileno(), kept)
