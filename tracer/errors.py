"""Every error that a user can meet, with its exit code. Caught once, in the command line.

    SpecScopeError
    ├── UsageError            2   the command or its input is wrong; also a ValueError
    │   ├── TraceError            2   a file cannot be read as a trace
    │   ├── DamagedRecordError    2   a record was changed, or is not one that it claims to be
    │   ├── NoSuchStepError       2   a trace has no such turn or step
    │   ├── FileTakenError        2   a file is there already, and nobody said that it may be replaced
    │   ├── CheckpointError       2   the files of a model are missing, unreadable or do not fit
    │   └── UnsupportedModelError 2   a sound model that cannot do what was asked
    ├── TraceLostError        2   the run is over, its trace is not whole
    ├── EngineError           2   decoding failed
    │   └── ViolationError 1   a check failed before a kernel ran
    ├── IncomparableError     3   the two runs were not meant to be equal
    └── CoverageError         4   too much is missing to judge

Messages say what was got, what was wanted and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

EXIT_EQUAL = 0
EXIT_DIFFERENT = 1
EXIT_USAGE = 2
EXIT_INCOMPARABLE = 3
EXIT_COVERAGE = 4
EXIT_NOT_REPRODUCED = 5  # of bisect alone: what was recorded did not come back
#: From the code that says least to the one that outranks all: a violation that was found stands whatever failed beside
#: it, and where nothing was judged is worse than where part of it was not.
SEVERITY = (EXIT_EQUAL, EXIT_NOT_REPRODUCED, EXIT_INCOMPARABLE, EXIT_COVERAGE, EXIT_USAGE, EXIT_DIFFERENT)


def worst_code(codes: Iterable[int]) -> int:
    """Of many exit codes the one to report: 1 outranks everything, then 2, 4, 3; 0 where there is none."""
    return max(codes, key=SEVERITY.index, default=EXIT_EQUAL)


class SpecScopeError(Exception):
    """The base of them all."""

    exit_code = EXIT_USAGE


class UsageError(SpecScopeError, ValueError):
    """The command or its input is wrong. For programs that call a function with it, a ``ValueError``."""


class FileTakenError(UsageError):
    """A file is there already, and nobody said that it may be replaced.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already: choose another name, or pass --overwrite (overwrite=True in Python)")


class TraceError(UsageError):
    """A file that cannot be read as a trace.

    Args:
        path: the file.
        problem: what was got and what was wanted.
        line: number of the line, from 1, where there is one.
        field: dotted name of the field, where there is one.
    """

    def __init__(self, path: Path, problem: str, line: int | None = None, field: str | None = None) -> None:
        place = f"{path}" + (f", line {line}" if line is not None else "") + (f", field {field}" if field else "")
        super().__init__(f"{place}: {problem}")
        self.path, self.line, self.field = path, line, field


class DamagedRecordError(UsageError):
    """A record that was changed since it was written, or is not one that it claims to be."""


class NoSuchStepError(UsageError):
    """A turn or a step that the trace does not have."""


class CheckpointError(UsageError):
    """The files of a model are missing, cannot be read, or do not fit together."""


class UnsupportedModelError(UsageError):
    """A sound model that cannot do what was asked of it."""


class TraceLostError(SpecScopeError):
    """The run itself came to its end; its trace could not be written to its own."""


class EngineError(SpecScopeError):
    """Decoding failed."""


class ViolationError(EngineError):
    """A structural check failed before a kernel ran."""

    exit_code = EXIT_DIFFERENT


class IncomparableError(SpecScopeError):
    """The two runs differ in something that was not to be compared."""

    exit_code = EXIT_INCOMPARABLE


class CoverageError(SpecScopeError):
    """Too much is missing to judge."""

    exit_code = EXIT_COVERAGE
