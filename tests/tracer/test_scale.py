"""Long traces: the benchmark's own figures of a short measurement. Memory must not grow with the trace; speeds are held
far below what an idle machine reaches, so that a busy one passes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support.traces import FUSED, ROOT

MORE_MEGABYTES = 5  # what ten times the steps may cost; records that were held would cost fifteen


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What the benchmark prints for some hundred steps of the sample trace."""
    command = [sys.executable, str(ROOT / "benchmarks" / "reading.py"), "--seed-trace", str(FUSED)]
    done = subprocess.run([*command, "--steps", "400", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "diff"])
def test_memory_is_flat_in_the_traces_length(measured: dict[str, Any], command: str) -> None:
    assert measured["steps"] >= 400
    assert measured[f"{command} peak MB"] - measured[f"{command} peak MB, a tenth"] < MORE_MEGABYTES


@pytest.mark.slow
def test_skimming_and_pairing_read_nothing_in_full(measured: dict[str, Any]) -> None:
    assert measured["skim MB/s"] > 1.5 * measured["json.loads MB/s"]
    assert measured["equal lines MB/s"] > 3 * measured["json.loads MB/s"]


@pytest.mark.slow
def test_validation_keeps_up_with_the_plain_parser(measured: dict[str, Any]) -> None:
    """Validated records cost no more than one and a half times what ``json.loads`` alone does."""
    validated = measured["validated steps/s"] * measured["MB a file"] / measured["steps"]
    assert validated > measured["json.loads MB/s"] / 1.5
