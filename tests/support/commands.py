"""Runs the installed ``specscope`` command as a user does: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from support.traces import ROOT


class Outcome(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


def specscope(*arguments: str | Path, cwd: Path = ROOT, timeout: float = 300) -> Outcome:
    """Runs ``specscope ARGUMENTS`` and waits for it. Fails where it prints a traceback."""
    command = Path(sys.executable).with_name("specscope")
    done = subprocess.run(
        [str(command), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert "Traceback (most recent call last)" not in done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)
