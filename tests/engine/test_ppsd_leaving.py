"""Stages of a pipeline end together: none is gone while another still speaks to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.traces import ROOT

from specscope.engine.ranks.lifeline import FOLDER_VARIABLE, Watch


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


RANK = """
import sys
from specscope.engine.ranks.leaving import ending
from specscope.engine.ranks.lifeline import Lifeline

def work():
    raise OSError("no space left on the disk")

ending(Lifeline(0), work)
"""


def test_a_rank_whose_disk_is_full_leaves_a_word_and_no_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", RANK], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    words = Watch(tmp_path).last_words(0)
    assert (done.returncode, done.stderr) == (2, "")
    assert words is not None
    assert words.message == "OSError: no space left on the disk"


def test_a_rank_whose_output_nobody_reads_leaves_its_code_and_nothing_to_say(tmp_path: Path) -> None:
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    program = RANK.replace('raise OSError("no space left on the disk")', "sys.exit(141)")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    words = Watch(tmp_path).last_words(0)
    assert (done.returncode, done.stderr) == (141, "")
    assert words is not None
    assert (words.message, words.exit_code, words.is_echo) == ("", 141, False)
