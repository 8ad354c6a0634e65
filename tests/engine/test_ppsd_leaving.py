"""Stages of a pipeline end together: none is gone while another still speaks to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.traces import ROOT


def test_a_stage_that_hears_news_late_does_not_leave_before_it(tmp_path: Path) -> None:
    program = ROOT / "tests" / "support" / "leaving_rank.py"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(program.parent.parent)}
    ranks = [
        subprocess.Popen(
            [sys.executable, program, str(rank), tmp_path / "store"], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(3)
    ]
    try:
        ended = [(rank.communicate(timeout=120)[1], rank.returncode) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [code for _, code in ended] == [0, 0, 0], ended
