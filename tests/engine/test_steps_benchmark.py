"""``benchmarks/steps.py`` counts the calls of every step, in drafting and in all, on the demo models."""

from __future__ import annotations

import os
import subprocess
import sys

from support.traces import ROOT

DRAFTERS = ("eagle3", "eagle3+ngram")


def printed(*options: str) -> list[list[str]]:
    """The cells of the table's rows."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.steps", *options],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]


def test_the_table_has_what_each_drafters_steps_cost() -> None:
    chosen = [option for name in DRAFTERS for option in ("--drafter", name)]
    rows = printed("--limit", "1", "--tokens", "8", *chosen)
    assert [name for name, *_ in rows] == list(DRAFTERS)
    assert rows[0][2] == "1.00"
    for _, per_step, _, *counts in rows:
        assert float(per_step) >= 1
        for total, drafting in (map(int, cell.split(",")) for cell in counts):
            assert 0 < drafting < total
