"""Calls what the ``specscope`` command calls, in the test's own process: quick, and its lines count as covered.

What only a process has (pipes, signals, a fresh interpreter without torch) is tested with ``support.commands``.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from specscope.tracer.cli.main import main
from support.commands import Outcome
from support.traces import ROOT


def specscope(*arguments: str | Path, cwd: Path = ROOT) -> Outcome:
    """What ``specscope ARGUMENTS`` exits with and prints in folder ``cwd``. Fails where it prints a traceback."""
    out, err = _printed(), _printed()
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["specscope", *map(str, arguments)]),
        mock.patch.object(sys.modules["__main__"], "__package__", None),  # of pytest, after which it would be called
        _streams(out, err),
    ):
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int), code
    done = Outcome(code, _text(out), _text(err))
    assert "Traceback (most recent call last)" not in done.err, done.err
    return done


def _printed() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", newline="\n")


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("utf-8")


@contextlib.contextmanager
def _streams(out: io.TextIOWrapper, err: io.TextIOWrapper) -> Iterator[None]:
    """Output and errors go there; the command may replace them."""
    with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
        yield
