"""``specscope doctor``, as a process of its own: what it finds here, what it says of a broken installation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import Outcome
from support.traces import ROOT

from specscope.engine.backends.attention import fused_attention
from specscope.engine.backends.graphs import EmulatedGraph, Graphs
from specscope.engine.backends.report import graph_problem
from specscope.engine.cli import trace_folder
from specscope.engine.cli.trace_folder import probe_folder, write_turns
from specscope.tracer import TraceReader
from specscope.tracer.errors import UsageError

#: As the installed command runs it, after what a test does to the process first.
PROGRAM = """
import sys
{first}
from specscope.engine.cli.doctor import doctor
from specscope.tracer.cli import main
main.LazyGroup.get_command = lambda self, ctx, name: doctor
sys.argv = ["specscope", "doctor", *sys.argv[1:]]
main.main()
"""
NO_TORCH = "sys.modules['torch'] = None"
BROKEN_TORCH = """
import importlib.abc
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "specscope.engine.backends.report":
            raise RuntimeError("Failed to load the backend extension: torch_npu")
sys.meta_path.insert(0, Broken())
"""


def doctor(folder: Path, *arguments: str, first: str = "") -> Outcome:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_sound_installation_has_no_problems_and_fits_in_80_columns(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    for words in ("torch 2.", "cpu: ", "fused on cpu: torch's scaled dot-product attention", "kill -9    survives:"):
        assert words in done.out
    assert "graphs     emulated, only with --graph; a captured call reads new inputs" in done.out
    assert done.out.count("equals eager in 15 of 15 cases") == 3  # dtypes
    assert done.out.endswith("problems   none\n")
    assert list(tmp_path.iterdir()) == []  # what was written there is gone


def test_json_holds_the_same_and_nothing_else_is_printed(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json", "--attention", "eager")
    facts = json.loads(done.out)
    assert (done.code, facts["exit_code"], facts["schema"]) == (0, 0, "specscope.doctor/1.0")
    assert facts["attention"]["kernel"] is None
    assert facts["trace_folder"]["survives_kill"] is True
    assert facts["trace_folder"]["records_after_kill"] >= facts["trace_folder"]["records_before_kill"] > 0
    assert facts["trace_folder"]["mb_per_s"] > 0


class Deaf(EmulatedGraph):
    """Replays nothing."""

    def replay(self) -> None:
        return


class Refused(EmulatedGraph):
    """Captures nothing."""

    def capture(self, work: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted")


def test_a_device_whose_graphs_do_not_work_is_a_problem() -> None:
    def problem(graph: type[EmulatedGraph]) -> str | None:
        return graph_problem(Graphs("emulated", graph), fused_attention, torch.device("cpu"), torch.float32)

    assert problem(EmulatedGraph) is None
    assert "a replay differs from the call uncaptured" in str(problem(Deaf))
    assert problem(Refused) == "RuntimeError: operation not permitted"


def test_a_kernel_that_is_wrong_is_a_problem(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "examples" / "my_kernel.py", tmp_path)
    done = doctor(tmp_path, "--attention", "my_kernel:forgets_the_mask")
    assert done.code == 1
    assert "FAILED a tree after 24 keys: error " in done.out
    assert "and 10 more; --json lists them" in done.out
    assert "so eager would" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("device", "says"),
    [("npu", "needs torch_npu and CANN"), ("cuda:9", "this torch sees"), ("foo", "no foo device; there is cpu")],
)
def test_a_device_that_is_not_there_is_a_problem_and_the_rest_is_examined(
    tmp_path: Path, device: str, says: str
) -> None:
    done = doctor(tmp_path, "--device", device)
    assert done.code == 1
    assert says in " ".join(done.out.split())
    assert "kill -9    survives:" in done.out


@pytest.mark.parametrize(
    ("first", "arguments", "code", "says"),
    [
        (NO_TORCH, (), 0, "nothing can be decoded without torch: pip install 'specscope[engine]'"),
        (NO_TORCH, ("--device", "npu"), 1, "torch is not installed, so --device npu cannot be examined"),
        (
            BROKEN_TORCH,
            (),
            1,
            "torch cannot be imported: RuntimeError: Failed to load the backend extension: torch_npu",
        ),
    ],
)
def test_without_a_torch_that_works_it_says_so_and_does_the_rest(
    tmp_path: Path, first: str, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = doctor(tmp_path, *arguments, first=first)
    assert done.code == code
    assert says in " ".join(done.out.split())
    assert "kill -9    survives:" in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--trace-folder", "nowhere"), "does not exist"),
        (("--device", "X y"), "got device 'X y'"),
        (("--attention", "fusde"), "did you mean fused?"),
    ],
)
def test_a_mistake_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = doctor(tmp_path, *arguments)
    assert done.code == 2
    assert says in done.err


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write traces to"):
        probe_folder(tmp_path / "file")


def test_what_it_writes_is_a_trace(tmp_path: Path) -> None:
    count = write_turns(tmp_path / "t.jsonl", 0.05)
    with TraceReader(tmp_path / "t.jsonl") as reader:
        assert not reader.truncated
        assert 2 * len(reader.turns) == count


def test_a_file_that_lost_records_does_not_survive(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_turns(path, 0.02)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    lost = trace_folder._read_again(path, len(lines))
    assert (lost.survives, lost.problem) == (False, "2 whole records were lost")
    path.write_bytes(b"".join([*lines[:2], b"{broken\n", *lines[3:]]))
    assert trace_folder._read_again(path, 2).survives is False


def test_a_writer_that_dies_by_itself_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_folder, "__name__", "no_such_module")
    result = trace_folder._survival(tmp_path / "t.jsonl")
    assert (result.survives, result.num_kept) == (False, 0)
