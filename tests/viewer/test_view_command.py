"""``specscope view`` as a process: it answers on the loopback address, ends when told, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

import specscope.viewer
from specscope.tracer.errors import UsageError
from specscope.viewer.cli.view import newest_traces
from specscope.viewer.server import choose_port

COMMAND = Path(sysconfig.get_path("scripts")) / "specscope"
LINUX = sys.platform.startswith("linux")


class Running(NamedTuple):
    """A viewer that answers."""

    process: subprocess.Popen[str]
    address: str


@contextmanager
def viewer(*arguments: str, folder: Path | None = None) -> Iterator[Running]:
    """Starts ``specscope view``, and ends it whatever happens."""
    process = subprocess.Popen(
        [str(COMMAND), "view", "--no-browser", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + (process.communicate()[1] if process.poll() is not None else "")
        yield Running(process, found[0])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def children_of(pid: int) -> list[int]:
    """Process ids of the children, from /proc."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def refused(*arguments: str, folder: Path | None = None) -> str:
    """What the command says when it exits 2; standard error alone, and one line."""
    done = subprocess.run(
        [str(COMMAND), "view", "--no-browser", *arguments], capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.skipif(not LINUX, reason="looks for children in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_answers_and_ends_with_its_child(make_trace: Callable[..., Path], number: int, code: int) -> None:
    with viewer(str(make_trace())) as (process, address):
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as reply:
            assert reply.status == 200
        children = children_of(process.pid)
        assert len(children) == 1
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert process.returncode == code
        assert "Traceback" not in out + err
        assert "Fatal" not in err
        assert not Path(f"/proc/{children[0]}").exists()
        port = int(address.rpartition(":")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.skipif(not LINUX, reason="looks at addresses in /proc")
def test_it_listens_on_the_loopback_address_alone(make_trace: Callable[..., Path]) -> None:
    trace = make_trace()
    with viewer(folder=trace.parent) as (_, address):  # no FILE: the folder's own
        port = int(address.rpartition(":")[2])
        suffix = f":{port:04X}"
        tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
        rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
        assert {row[1] for row in rows if row[1].endswith(suffix) and row[3] == "0A"} == {f"0100007F{suffix}"}


@pytest.mark.skipif(not LINUX, reason="looks for children in /proc")
def test_the_child_ends_even_when_the_command_is_killed(make_trace: Callable[..., Path]) -> None:
    with viewer(str(make_trace())) as (process, _):
        (child,) = children_of(process.pid)
        process.kill()
        process.communicate(timeout=20)  # the child holds the pipes open until it ends
        assert not Path(f"/proc/{child}/cwd").exists()


def test_files_that_are_no_traces(tmp_path: Path, make_trace: Callable[..., Path]) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n", encoding="utf-8")
    assert "is this a trace?" in refused(str(make_trace()), str(tmp_path / "bad.jsonl"))
    assert "no such file" in refused(str(tmp_path / "none.jsonl"))


def test_a_line_that_is_no_record_is_named(make_trace: Callable[..., Path]) -> None:
    path = make_trace(run_end=False)
    with path.open("ab") as file:
        file.write(b"nonsense\n")
    assert "line 7: not JSON" in refused(str(path))


def test_a_folder_without_traces(tmp_path: Path) -> None:
    assert "no *.jsonl in" in refused(folder=tmp_path)


def test_a_missing_tokenizer(make_trace: Callable[..., Path]) -> None:
    assert "no tokenizer at" in refused(str(make_trace()), "--tokenizer", "nowhere.json")


def test_a_port_that_is_taken(make_trace: Callable[..., Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in refused(str(make_trace()), "--port", str(port))
        with pytest.raises(UsageError):
            choose_port(port)
    assert choose_port(port) == port


def test_traces_of_a_folder_are_listed_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new.jsonl", "old.jsonl", "older.jsonl")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in newest_traces(tmp_path)] == ["new.jsonl", "old.jsonl", "older.jsonl"]


def test_no_file_shadows_a_module() -> None:
    """``streamlit run viewer/app.py`` puts viewer/ first on sys.path."""
    folder = Path(next(iter(specscope.viewer.__path__)))
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__"}
    assert not names & set(sys.stdlib_module_names)
    assert not (names - {"__pycache__"}) & set(packages_distributions())


def test_the_command_loads_no_heavy_library() -> None:
    code = "import sys, specscope.viewer.cli.view; sys.exit(bool({'torch', 'streamlit', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_viewer_never_imports_torch_or_the_engine() -> None:
    folder = Path(next(iter(specscope.viewer.__path__)))
    modules = [f"specscope.viewer.{path.stem}" for path in folder.glob("*.py") if path.stem not in ("__init__", "app")]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'specscope.engine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, stderr=subprocess.DEVNULL).returncode == 0


def test_the_entry_point_is_installed() -> None:
    assert shutil.which(str(COMMAND))
