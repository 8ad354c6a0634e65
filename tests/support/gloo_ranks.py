"""Starts a program once per rank of a real gloo group, and waits for all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch.distributed as dist

from support.traces import ROOT

PATIENCE_S = 400  # of a machine on which much else runs


def run_ranks(program: str, count: int, store: Path, *arguments: str | Path) -> None:
    """Runs ``tests/support/PROGRAM RANK COUNT STORE ARGUMENTS`` as ``count`` processes; fails where one of them does,
    or hangs."""
    command = [sys.executable, str(ROOT / "tests" / "support" / program)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(count), str(store), *map(str, arguments)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        ended = [(rank.communicate(timeout=PATIENCE_S)[1], rank.returncode) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [code for _, code in ended] == [0] * count, ended


def join(rank: str, count: str, store: str) -> int:
    """Joins the group of such a program, and gives the rank."""
    files = dist.FileStore(store, int(count))  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=files, rank=int(rank), world_size=int(count))
    return int(rank)
