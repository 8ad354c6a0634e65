"""A trace that cannot be written any more: decoding goes on to the same tokens, one warning is given where it happens,
the last line says that the trace is incomplete, the exit code is 2, and the trace says that it was cut. Through the
command, as a user meets it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from support.called import specscope

RUN = ("run", "--prompt", "def parse(line):", "--max-new-tokens", "24", "--json")
LARGEST = 20_000  # bytes that a file may have: some steps of a trace, and no file of tensors


class Decoded(NamedTuple):
    """What a run printed."""

    tokens: list[int]
    warnings: list[str]


def start(*arguments: str, largest: int | None = None) -> subprocess.Popen[str]:
    """``specscope run``; no file of it may grow beyond ``largest``, as where a quota is used up."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    command = [str(Path(sys.executable).with_name("specscope")), *RUN, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit)


def finish(child: subprocess.Popen[str]) -> Decoded:
    """What a run printed that wrote all it was asked for."""
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    return decoded_of(out, err)


def finish_lost(child: subprocess.Popen[str]) -> Decoded:
    """What a run printed that lost its trace on the way."""
    out, err = child.communicate(timeout=300)
    assert child.returncode == 2, err
    last = err.splitlines()[-1]
    assert last.startswith("error: the trace ")
    assert "is incomplete: " in last
    return decoded_of(out, err)


def decoded_of(out: str, err: str) -> Decoded:
    assert "Traceback" not in err
    return Decoded(json.loads(out)["output_ids"], [line for line in err.splitlines() if "warning" in line])


@pytest.fixture(scope="module")
def untraced() -> list[int]:
    """The tokens of the same run without a trace."""
    decoded = finish(start())
    assert decoded.warnings == []
    return decoded.tokens


def assert_cut(path: Path) -> None:
    done = specscope("check", path)
    assert done.code == 4, done.out
    assert "TRUNCATED" in done.out


@pytest.mark.slow
def test_a_used_up_quota_ends_the_trace_alone(tmp_path: Path, untraced: list[int]) -> None:
    path = tmp_path / "quota.jsonl"
    decoded = finish_lost(start("--trace", str(path), largest=LARGEST))
    assert decoded.tokens == untraced
    assert len(decoded.warnings) == 1
    assert "the trace" in decoded.warnings[0]
    assert "File too large" in decoded.warnings[0]
    assert 0 < path.stat().st_size <= LARGEST
    assert_cut(path)


@pytest.mark.slow
def test_a_full_device_ends_the_trace_alone(untraced: list[int]) -> None:
    decoded = finish_lost(start("--trace", "/dev/full", "--overwrite"))
    assert decoded.tokens == untraced
    assert len(decoded.warnings) == 1
    assert "No space left" in decoded.warnings[0]


@pytest.mark.slow
def test_a_replay_that_loses_its_trace_says_so(tmp_path: Path) -> None:
    source, out = tmp_path / "run.jsonl", tmp_path / "again.jsonl"
    finish(start("--trace", str(source)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))

    command = [str(Path(sys.executable).with_name("specscope")), "replay", str(source), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: the trace {out} is incomplete: File too large")
    assert "every step as recorded" in done.stdout
    assert "trace:" not in done.stdout
    assert_cut(out)


@pytest.mark.slow
def test_a_trace_that_a_run_is_writing_is_nobody_elses(tmp_path: Path, untraced: list[int]) -> None:
    path, source = tmp_path / "run.jsonl", tmp_path / "source.jsonl"
    finish(start("--trace", str(source)))
    path.write_text("replaced by the first\n" * 1000)
    first = start("--trace", str(path), "--overwrite")
    while path.read_bytes()[:1] != b"{":
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # in the middle of its run, until the others have tried
    try:
        for others in (RUN, ("replay", source)):
            target = ("--trace", path) if others is RUN else ("--out", path)
            done = specscope(*others, *target, "--overwrite")
            assert done.code == 2
            assert done.err == f"error: another run is writing {path}: wait for it to end, or choose another name\n"
    finally:
        first.send_signal(signal.SIGCONT)
    assert finish(first).tokens == untraced
    assert specscope("check", path).code == 0


@pytest.mark.slow
def test_side_files_that_do_not_fit_end_the_trace_alone(tmp_path: Path, untraced: list[int]) -> None:
    path = tmp_path / "tensors.jsonl"
    decoded = finish_lost(start("--trace", str(path), "--trace-level", "tensors", largest=LARGEST))
    assert decoded.tokens == untraced
    assert len(decoded.warnings) == 1
    assert list((tmp_path / "tensors.tensors").iterdir()) == []  # no half of a file
    assert_cut(path)


@pytest.mark.slow
def test_a_trace_that_is_removed_while_it_is_written_is_told_of(tmp_path: Path, untraced: list[int]) -> None:
    path = tmp_path / "removed.jsonl"
    child = start("--trace", str(path))
    while not path.exists():
        assert child.poll() is None
        time.sleep(0.005)
    path.unlink()
    decoded = finish_lost(child)
    assert decoded.tokens == untraced
    assert len(decoded.warnings) == 1
    assert "removed while it was written" in decoded.warnings[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = specscope("run", "--prompt", "x", "--trace", tmp_path / "run.jsonl")
    assert done.code == 2
    assert "permission denied" in done.err


@pytest.mark.slow
def test_tensors_are_checked_against_their_files(tmp_path: Path) -> None:
    path, folder = tmp_path / "run.jsonl", tmp_path / "run.tensors"
    finish(start("--trace", str(path), "--trace-level", "tensors"))
    assert specscope("check", path).code == 0
    first, *_ = sorted(folder.iterdir())
    kept = first.read_bytes()
    first.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert_violated(path, "has digest")
    first.unlink()
    assert_violated(path, "is not there")
    first.symlink_to("/etc/hostname")
    assert_violated(path, "outside the trace's folder")
    folder.rename(tmp_path / "elsewhere")
    alone = specscope("check", path)
    assert alone.code == 0, "a trace that was moved without its files"
    assert "run.tensor-files" in alone.out


def assert_violated(path: Path, words: str) -> None:
    done = specscope("check", path)
    assert done.code == 1
    assert "run.tensor-files" in done.out
    assert words in " ".join(done.out.split())


def closed_pipe(*arguments: str) -> int:
    """The exit code of a run whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(Path(sys.executable).with_name("specscope")), *arguments]
    child = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert child.communicate(timeout=300)[1] == ""
    return child.returncode


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_run_whose_reader_left_ends_its_trace_whole(tmp_path: Path, form: list[str]) -> None:
    path = tmp_path / "run.jsonl"
    assert closed_pipe(*RUN[:-1], *form, "--trace", str(path)) == 0
    assert specscope("check", path).code == 0


@pytest.mark.slow
def test_a_run_without_reader_or_trace_stops_as_a_shell_expects(tmp_path: Path) -> None:
    assert closed_pipe(*RUN[:3], "--max-new-tokens", "1000") == 141
