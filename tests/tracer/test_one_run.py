"""A run that is compared with itself is equal, and the verdict says what that is worth, in every format."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.called import specscope
from support.traces import EAGER, FUSED, load, store

from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.report.formats import FORMATS

SAME = "are the same file"


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (os.symlink, SAME),
        (os.link, SAME),
        (shutil.copy, "copy of the baseline, byte for byte"),
    ],
)
def test_links_and_copies_are_one_run(tmp_path: Path, link: Callable[[Path, Path], object], words: str) -> None:
    source, other = tmp_path / "source.jsonl", tmp_path / "other.jsonl"
    shutil.copy(FUSED, source)
    link(source, other)
    verdict = diff_traces(source, other)
    assert (verdict.verdict, verdict.exit_code) == ("equal", 0)
    assert len(verdict.remarks) == 1
    assert words in verdict.remarks[0]


def test_two_traces_of_one_run_are_named(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["created"] = "2001-01-01T00:00:00Z"
    verdict = diff_traces(FUSED, store(lines, tmp_path / "touched.jsonl"))
    assert verdict.verdict == "equal"
    assert str(lines[0]["run_id"]) in verdict.remarks[0]


def test_two_runs_get_no_remark() -> None:
    assert diff_traces(EAGER, FUSED).remarks == []


@pytest.mark.parametrize("form", list(FORMATS))
def test_every_format_says_so(form: str) -> None:
    done = specscope("diff", FUSED, FUSED, "--format", form)
    assert done.code == 0
    assert SAME in " ".join(done.out.replace("│", " ").split()).replace("&#32;", " ")
    assert SAME not in specscope("diff", EAGER, FUSED, "--format", form).out


def test_a_workflow_gets_a_warning() -> None:
    assert specscope("diff", FUSED, FUSED, "--format", "github").out.startswith("::warning title=")


def test_a_test_run_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from specscope.tracer.pytest_plugin import assert_traces_match\n"
        f"def test_itself():\n    assert_traces_match({str(FUSED)!r}, {str(FUSED)!r})\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "specscope remarks" in done.stdout
    assert f"test_it.py::test_itself (call): baseline and candidate {SAME}" in done.stdout


def test_many_pairs_and_their_summary_say_so(tmp_path: Path) -> None:
    table, results = tmp_path / "pairs.csv", tmp_path / "results.jsonl"
    table.write_text(f"baseline,candidate,name\n{EAGER},{FUSED},two\n{FUSED},{FUSED},twice\n")
    done = specscope("diff-many", table, "--out", results, "--jobs", "1")
    assert done.code == 0
    assert done.out == specscope("summary", results).out
    (line,) = [line for line in done.out.splitlines() if SAME in line]
    assert line.split()[:2] == ["remark", "twice"]
    found = json.loads(specscope("summary", results, "--format", "json").out)
    assert [entry["name"] for entry in found["remarked"]] == ["twice"]
    assert "twice" in specscope("summary", results, "--format", "markdown").out
