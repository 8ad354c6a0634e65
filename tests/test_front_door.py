"""What a program may import, and that the documents' Python runs as it stands."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from support.traces import ROOT

PUBLIC = {
    "specscope.tracer": {
        "DiffOptions",
        "Recorder",
        "SpecScopeError",
        "TraceReader",
        "TraceRing",
        "TraceWriter",
        "check_trace",
        "diff_traces",
        "graph_text",
        "step_rows",
        "tree_graph",
    },
    "specscope.engine": {"Prompt", "SamplingRule", "Settings", "TurnReport", "decode", "load_models"},
    "specscope.engine.hf": {"TreeGenerate", "tree_generate"},
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_room_exports_what_is_promised_and_nothing_else(module: str) -> None:
    room = import_module(module)
    assert set(room.__all__) == PUBLIC[module]
    for name in PUBLIC[module]:
        assert name in dir(room)
        assert inspect.getdoc(getattr(room, name)), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("module", ["specscope.tracer", "specscope.engine"])
def test_what_is_not_there_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = import_module(module).no_such_thing


def test_decode_is_the_function_even_after_its_modules_are_loaded() -> None:
    script = "import specscope.engine.loop.session, specscope.engine as e; assert callable(e.decode)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd="/")


@pytest.mark.slow
def test_the_documents_python_runs_as_it_stands(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 7
    script = tmp_path / "document.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "got mode 'fussed', wanted one of fused, eager, baseline" in done.stdout
