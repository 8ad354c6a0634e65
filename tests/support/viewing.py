"""A viewer as a process of its own, as ``specscope view`` starts it."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

COMMAND = Path(sysconfig.get_path("scripts")) / "specscope"


class Running(NamedTuple):
    """A viewer that answers."""

    process: subprocess.Popen[str]
    address: str  # without what follows the port
    line: str  # that the command printed


@contextmanager
def viewer(*arguments: str | Path, folder: Path | None = None, group: bool = False) -> Iterator[Running]:
    """Starts ``specscope view``, and ends it whatever happens; ``group`` makes it one of its own, as a shell does."""
    process = subprocess.Popen(
        [str(COMMAND), "view", "--no-browser", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=group,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://[^/ ]+:\d+", line)
        assert address, line + (process.communicate()[1] if process.poll() is not None else "")
        yield Running(process, address[0], line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)
