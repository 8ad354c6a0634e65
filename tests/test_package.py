"""The package from outside: how it is started, its version, and paths given as text."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support.traces import EAGER, FUSED

import specscope
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace


@pytest.mark.parametrize("module", ["specscope", "specscope.tracer.cli.main"])
def test_python_runs_it_as_a_module(module: str) -> None:
    command = [sys.executable, "-m", module]
    done = subprocess.run([*command, "check", "absent.jsonl"], capture_output=True, text=True, cwd="/", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: absent.jsonl: no such file\n")
    usage = subprocess.run([*command, "check"], capture_output=True, text=True, cwd="/", check=False)
    assert usage.returncode == 2
    assert usage.stderr == f"error: missing argument 'FILES...'; see  python -m {module} check --help\n"


def test_it_knows_its_version() -> None:
    assert specscope.__version__ == version("specscope")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = specscope.nonsense


def test_the_package_imports_no_room() -> None:
    script = "import specscope, sys; print([name for name in sys.modules if name.startswith('specscope.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout == "[]\n"


def test_a_path_may_be_text() -> None:
    with TraceReader(str(EAGER)) as reader:
        assert reader.path == Path(EAGER)
        assert reader.turns
    assert check_trace(str(EAGER)).path == Path(EAGER)
    verdict = diff_traces(str(EAGER), str(FUSED))
    assert verdict == diff_traces(EAGER, FUSED)
