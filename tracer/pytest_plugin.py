"""Traces in pytest: compare two runs in a test, record one, keep a baseline beside the test file.

Loaded by every pytest run of everyone who has SpecScope installed; so nothing is imported before it is used.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import pytest

_COMMAND = "import sys; sys.argv[0] = 'specscope'; from specscope.tracer.cli.main import main; main()"
_SETTLED = ("", "0", "false")  # values of CI that mean no CI

#: The baselines that the running test got under --specscope-update, to be written instead of compared.
_to_write: set[Path] = set()
#: What the comparisons that passed are worth less for, with the test that made them.
_remarks: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--specscope-update``."""
    group = parser.getgroup("specscope", "traces of speculative decoding (specscope)")
    group.addoption(
        "--specscope-update",
        action="store_true",
        help="Replace the baselines of specscope_baseline with the candidates that they are compared with.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuses to rewrite baselines in CI, where a test that fails would turn into one that passes."""
    if config.getoption("--specscope-update") and os.environ.get("CI", "").strip().lower() not in _SETTLED:
        raise pytest.UsageError(
            "--specscope-update is refused where the environment says CI: update the baselines on your machine, look "
            "at what changed, and commit them"
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which comparisons compared a run with itself."""
    if _remarks:
        terminalreporter.section("specscope remarks")
        for remark in _remarks:
            terminalreporter.line(remark)
        _remarks.clear()


def assert_traces_match(
    baseline: str | os.PathLike[str],
    candidate: str | os.PathLike[str],
    *,
    allow: Iterable[str] = (),
    noise: str | os.PathLike[str] | None = None,
    fail_on: Literal["real", "near-tie"] = "real",
) -> None:
    """Asserts what ``specscope diff`` exits 0 for: the traces are equal except for drift and ties.

    Args:
        baseline: a trace; where ``specscope_baseline`` gave it and --specscope-update is set, it is replaced by
            ``candidate`` instead.
        candidate: the trace to be judged.
        allow: manifest fields that may differ.
        noise: a run known to be good, which differs from the baseline by noise alone: measures the noise floor.
        fail_on: "near-tie" lets ties fail, too.

    Where both are one file, or of one run, it passes, and the end of the test run says so.

    Raises:
        AssertionError: with the verdict's card, wherever diff would exit 1, 3 or 4: the traces differ, an invariant is
            violated, the runs are not comparable, or too little was recorded.
        UsageError: where diff would exit 2: a file cannot be read as a trace, or ``noise`` is of another run.
    """
    __tracebackhide__ = True
    baseline, candidate = Path(baseline), Path(candidate)
    if baseline in _to_write:
        _replace(baseline, candidate)
        return
    if not baseline.exists():
        from specscope.tracer.errors import UsageError

        raise UsageError(f"no baseline at {baseline}: write it with  pytest --specscope-update")
    from specscope.tracer.cli.diff import make_report
    from specscope.tracer.compare.diff import DiffOptions
    from specscope.tracer.naming.tokens import TokenTexts
    from specscope.tracer.report import text

    known = None if noise is None else Path(noise)
    options = DiffOptions(allowed=frozenset(allow), fail_on_ties=fail_on == "near-tie", noise=known)
    report = make_report(baseline, candidate, options, TokenTexts(None))
    if report.verdict.exit_code:
        raise AssertionError(f"the traces do not match\n{text.render(report)}")
    for remark in report.verdict.remarks:
        _remarks.append(f"{os.environ.get('PYTEST_CURRENT_TEST', 'a test')}: {remark}")


def _replace(baseline: Path, candidate: Path) -> None:
    """Makes ``candidate`` the baseline, whole or not at all; but not a run that is unsound or cut off."""
    from specscope.tracer.cli.check import exit_code
    from specscope.tracer.oracle.check import check_trace
    from specscope.tracer.report.formats import write_whole

    report = check_trace(candidate)
    if exit_code(report):
        broken = [f"{name}: {tally.first.witness}" for name, tally in report.invariants.items() if tally.first]
        what = "\n".join(broken) or "it is cut off, or its run failed"
        raise AssertionError(f"{candidate} is no baseline; specscope check says\n{what}")
    baseline.parent.mkdir(exist_ok=True)
    write_whole(baseline, candidate.read_text(encoding="utf-8"))


@pytest.fixture
def specscope_record(tmp_path: Path) -> Callable[..., Path]:
    """Runs ``specscope run ARGUMENTS --trace FILE`` in a process of its own and gives the trace, a new file in
    ``tmp_path`` at each call. Relative paths are the test run's. Where the run fails, so does the test, with what the
    run wrote to standard error."""
    num_traces = 0

    def record(*arguments: str | Path, timeout: float | None = None) -> Path:
        __tracebackhide__ = True
        nonlocal num_traces
        trace = tmp_path / f"specscope-{num_traces}.jsonl"
        num_traces += 1
        command = [sys.executable, "-P", "-c", _COMMAND, "run", *map(str, arguments), "--trace", str(trace)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
        if done.returncode:
            words = " ".join(map(str, arguments))
            pytest.fail(f"specscope run {words} exited {done.returncode}:\n{done.stderr}", pytrace=False)
        return trace

    return record


@pytest.fixture
def specscope_baseline(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Gives the path of a committed baseline by its name: ``traces/NAME.jsonl`` beside the test file."""
    given: set[Path] = set()

    def baseline(name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            from specscope.tracer.errors import UsageError

            raise UsageError(f"got the baseline name {name!r}, wanted letters, digits, dots, dashes and underscores")
        path = request.path.parent / "traces" / f"{name}.jsonl"
        if request.config.getoption("--specscope-update"):
            given.add(path)
            _to_write.add(path)
        return path

    yield baseline
    _to_write.difference_update(given)
