"""A reader that leaves before the output ends (``| head -1``, ``| grep -q``) changes no verdict. With real pipes, whose
reading end is closed before the command prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.traces import EAGER, FAULTY, FUSED, ROOT

DIFF_FORMATS = ["text", "json", "junit", "github", "markdown", "html"]


def code_of(*arguments: object, errors_too: bool = False) -> int:
    """The exit code of ``specscope ARGUMENTS`` whose standard output, and error if asked for, nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.Popen(
        [str(Path(sys.executable).with_name("specscope")), *map(str, arguments)],
        cwd=ROOT,
        stdout=writing,
        stderr=writing if errors_too else subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    said = child.communicate(timeout=300)[1]
    assert not said, said
    return child.returncode


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A trace without its end."""
    path = tmp_path / "cut.jsonl"
    path.write_bytes(b"".join(FUSED.read_bytes().splitlines(keepends=True)[:-1]))
    return path


@pytest.mark.parametrize("form", DIFF_FORMATS)
@pytest.mark.parametrize(("candidate", "code"), [(FUSED, 0), (FAULTY, 1)])
def test_a_diff_exits_by_its_verdict(form: str, candidate: Path, code: int) -> None:
    assert code_of("diff", EAGER, candidate, "--format", form) == code


def test_a_diff_that_is_not_comparable_or_not_covered_keeps_its_code(tmp_path: Path, cut: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(FUSED.read_bytes().replace(b'"dtype":"float32"', b'"dtype":"bfloat16"', 1))
    assert code_of("diff", EAGER, other) == 3
    assert code_of("diff", EAGER, cut) == 4


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_check_of_several_files_judges_them_all(cut: Path, form: str) -> None:
    assert code_of("check", FUSED, "--format", form) == 0
    assert code_of("check", FUSED, cut, "--format", form) == 4
    assert code_of("check", FUSED, cut, FAULTY, "--format", form) == 1


def test_show_schema_and_help_have_nothing_to_fail_by() -> None:
    assert code_of("show", FAULTY) == 0
    assert code_of("show", FAULTY, "--step", "1") == 0
    assert code_of("schema") == 0
    assert code_of("--help") == 0


def test_many_pairs_and_their_summary_exit_by_the_worst_pair(tmp_path: Path) -> None:
    table, results = tmp_path / "pairs.csv", tmp_path / "results.jsonl"
    table.write_text(f"baseline,candidate\n{EAGER},{FUSED}\n{EAGER},{FAULTY}\n")
    assert code_of("diff-many", table, "--out", results, "--jobs", "1", errors_too=True) == 1
    for form in ("text", "json", "markdown"):
        assert code_of("summary", results, "--format", form) == 1


def test_an_error_that_nobody_reads_keeps_its_code(tmp_path: Path) -> None:
    assert code_of("check", tmp_path / "none.jsonl", errors_too=True) == 2
    assert code_of("diff", FUSED, errors_too=True) == 2


def test_a_shell_that_fails_with_its_pipe_sees_the_verdict() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    command = Path(sys.executable).with_name("specscope")
    for candidate, code in ((FUSED, 0), (FAULTY, 1)):
        line = f"set -o pipefail; '{command}' check -v '{candidate}' '{candidate}' | head -1"
        done = subprocess.run([bash, "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, "")
        assert len(done.stdout.splitlines()) == 1


def test_a_disk_without_room_for_the_output_is_no_verdict() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    command = [str(Path(sys.executable).with_name("specscope"))]
    for arguments in (["diff", str(EAGER), str(FUSED)], ["check", str(FUSED), "--format", "json"], ["schema"]):
        with full.open("w") as out:
            done = subprocess.run(command + arguments, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("error: cannot write the output: ")
        assert "No space left" in done.stderr
        assert done.stderr.count("\n") == 1


def test_output_that_was_closed_from_the_start_is_dropped() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    command = Path(sys.executable).with_name("specscope")
    line = f"'{command}' check '{FAULTY}' >&-"
    done = subprocess.run([bash, "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
