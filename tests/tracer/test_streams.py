"""What a command prints, it prints once: also where a signal comes as it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Prints 2,000 lines; about as each is written, a timer's signal raises.
SCRIPT = """
import signal
import sys

from specscope.tracer.cli.streams import outlive_readers


class Alarm(Exception):
    pass


def raised(number, frame):
    raise Alarm


outlive_readers()
signal.signal(signal.SIGALRM, raised)
for number in range(2000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 60) if number % 5 else 2e-3)
        sys.stdout.write(f"line {number}\\n")
        sys.stdout.flush()
        while True:
            pass
    except Alarm:
        pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such timer")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_that_a_signal_interrupts_is_not_printed_again(tmp_path: Path, unbuffered: str) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out.txt"
    script.write_text(SCRIPT)
    with out.open("wb") as file:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        subprocess.run([sys.executable, str(script)], stdout=file, env=environment, check=True, timeout=120)
    lines = out.read_text().splitlines()
    assert len(set(lines)) == len(lines)
    assert len(lines) > 100, "every fifth has time"
