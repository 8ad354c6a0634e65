"""Commands in a real terminal, which is as wide as a person's."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import NamedTuple

#: How a terminal is told of colours, of the cursor and of links.
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\]8;[^\x1b]*\x1b\\\\")


class Shown(NamedTuple):
    """What a command showed on a terminal."""

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """Its lines; of one that was written over, what was left."""
        return [line.rpartition("\r")[2] for line in self.text.split("\n")]


def on_terminal(*arguments: str | Path, cwd: Path, columns: int = 80) -> Shown:
    """``specscope`` with its output and its errors on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "specscope", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=cwd, env={**known, "TERM": "xterm"}
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    text = b"".join(parts).decode().replace("\r\n", "\n")
    return Shown(process.wait(), CONTROLS.sub("", text))
