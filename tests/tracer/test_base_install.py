"""The base install, without any extra: what needs one says in one line which, and everything else works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.traces import EAGER, FUSED, ROOT

#: What the extras bring; in the base install none of it is there.
OF_EXTRAS = ("torch", "numpy", "transformers", "safetensors", "tokenizers", "streamlit", "plotly", "duckdb", "pyarrow")
CODE = f"""
import sys
sys.modules |= dict.fromkeys({OF_EXTRAS})
from specscope.tracer.cli.main import main
main()
"""
TRACE, OTHER = str(EAGER), str(FUSED)
NEEDS_ENGINE = (
    ("demo",),
    ("run", "--prompt", "x"),
    ("bench",),
    ("selftest",),
    ("replay", TRACE, "--out", "out.jsonl"),
    ("repro", TRACE),
    ("bisect", TRACE, OTHER),
    ("train", "--work", "work"),
)
NEEDS_VIEWER = (("view", TRACE),)
NEEDS_QUERY = (("query", "SELECT 1", TRACE), ("export", TRACE, "--format", "parquet", "-o", "out.parquet"))
NEEDS_NOTHING = (
    ("check", TRACE),
    ("diff", TRACE, OTHER),
    ("show", TRACE),
    ("metrics", TRACE),
    ("whatif", TRACE),
    ("report", TRACE, OTHER, "-o", "out.html"),
    ("export", TRACE, "-o", "out.json"),
    ("export", TRACE, "--help"),
    ("query", "--columns"),
    ("schema",),
)


def base(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as the base install runs it, in ``folder``."""
    command = [sys.executable, "-c", CODE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [("engine", line) for line in NEEDS_ENGINE]
    + [("viewer", line) for line in NEEDS_VIEWER]
    + [("query", line) for line in NEEDS_QUERY],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_that_needs_an_extra_names_it_in_one_line(
    extra: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = base(*arguments, folder=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: this command needs ")
    assert line.endswith(f"install it with  pip install 'specscope[{extra}]'")
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("arguments", NEEDS_NOTHING, ids=lambda line: line[0])
def test_every_other_command_works(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = base(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_token_texts_need_a_library_that_is_named(tmp_path: Path) -> None:
    done = base("show", "--tokenizer", str(ROOT / "engine" / "demo_models" / "teacher"), TRACE, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: reading a tokenizer needs the tokenizers library: pip install tokenizers"
    ]
