"""The comparison of one pair, as a worker runs it: whatever goes wrong becomes a result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version

from specscope.schemas.pair_result import PairResult
from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import EXIT_INCOMPARABLE, EXIT_USAGE, SpecScopeError
from specscope.tracer.fleet.results import first_root
from specscope.tracer.fleet.table import Pair
from specscope.tracer.naming.text import printable


@dataclass(frozen=True)
class Task:
    """A pair with the settings that hold for all of them."""

    pair: Pair
    tolerance: float | None = None
    fail_on_ties: bool = False

    @property
    def stamp(self) -> str:
        """What a result holds for: the files by size and time, the settings, the version. Missing files have none."""
        files = [self.pair.baseline, self.pair.candidate, *([self.pair.noise] if self.pair.noise else [])]
        parts = [f"specscope {version('specscope')}", f"tolerance {self.tolerance}", f"ties fail {self.fail_on_ties}"]
        parts += [f"allow {' '.join(self.pair.allowed)}"]
        for path in files:
            try:
                status = path.stat()
                parts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
            except OSError:
                parts.append(f"{path.name} missing")
        return printable("; ".join(parts))


def judge_pair(task: Task) -> PairResult:
    """Compares one pair. Never raises: a failure is a result that says so."""
    begun, stamp = time.monotonic(), task.stamp  # before reading, so that a file that changes meanwhile is read again
    pair = task.pair
    options = DiffOptions(
        tolerance=task.tolerance,
        allowed=frozenset(pair.allowed),
        fail_on_ties=task.fail_on_ties,
        noise=pair.noise,
    )
    try:
        verdict = diff_traces(pair.baseline, pair.candidate, options)
    except SpecScopeError as error:
        return error_result(task, stamp, str(error), time.monotonic() - begun, exit_code=error.exit_code)
    except Exception as error:  # one pair that meets a defect of ours must not cost the others
        return error_result(task, stamp, f"{type(error).__name__}: {error}", time.monotonic() - begun)
    return _result(task, stamp, verdict, time.monotonic() - begun)


def error_result(task: Task, stamp: str, error: str, seconds: float, *, exit_code: int = EXIT_USAGE) -> PairResult:
    """The result of a pair that came to no verdict."""
    return PairResult(
        name=task.pair.name,
        baseline=printable(str(task.pair.baseline)),
        candidate=printable(str(task.pair.candidate)),
        stamp=stamp,
        verdict="incomparable" if exit_code == EXIT_INCOMPARABLE else "error",
        exit_code=exit_code,
        seconds=seconds,
        error=printable(error),
    )


def _result(task: Task, stamp: str, verdict: Verdict, seconds: float) -> PairResult:
    return PairResult(
        name=task.pair.name,
        baseline=verdict.baseline,
        candidate=verdict.candidate,
        stamp=stamp,
        verdict=verdict.verdict,
        exit_code=verdict.exit_code,
        seconds=seconds,
        first_root=first_root(verdict),
        num_roots=len(verdict.roots),
        num_inherited=verdict.num_inherited,
        first_violation=verdict.violations[0] if verdict.violations else None,
        impact=verdict.impact,
        remarks=verdict.remarks,
    )
