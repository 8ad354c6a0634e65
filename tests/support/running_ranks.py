"""``specscope run`` with several ranks, watched from outside: which process is which, and that none is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.traces import ROOT

PATIENCE_S = 120.0


def rank_processes(folder: Path) -> list[int]:
    """The processes whose environment names ``folder``, but for the launcher's own."""
    marks, pids = f"SPECSCOPE_RANKS_FOLDER={folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
        except OSError:
            continue
        if marks in environment:
            pids.append(int(path.parent.name))
    return pids


class Running:
    """A run of several ranks in the background. The launcher's folder is found through ``TMPDIR``; its files say which
    process is which rank, and what each is doing."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("specscope")), "run", *arguments]
        self.folder = folder
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"},
        )

    def life(self, rank: int) -> dict[str, Any] | None:
        """What the rank said last."""
        for path in self.folder.glob(f"specscope-ranks-*/life-{rank}.json"):
            pid, _, activity, _ = json.loads(path.read_text())
            return {"pid": pid, "activity": activity}
        return None

    def await_activity(self, rank: int, activity: str) -> int:
        """The process of the rank, once it is at it."""
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE_S:
            life = self.life(rank)
            if life is not None and life["activity"] == activity:
                pid: int = life["pid"]
                return pid
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.005)
        raise AssertionError(f"rank {rank} is not {activity}: {self.life(rank)}")

    def end(self) -> tuple[int, str, float]:
        """Exit code, standard error, and how long it took from now; no rank may be left."""
        (ranks,) = self.folder.glob("specscope-ranks-*")
        begun = time.monotonic()
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        seconds = time.monotonic() - begun
        deadline = time.monotonic() + 5
        while rank_processes(ranks) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert rank_processes(ranks) == [], "a rank is left behind"
        return self.process.returncode, errors, seconds


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    """A run that is ended when the block is left."""
    run = Running(folder, *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.communicate(timeout=30)
