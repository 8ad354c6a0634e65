"""``specscope view`` as a process: it answers on the loopback address, ends when told, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from support.viewing import COMMAND, viewer

import specscope.viewer
from specscope.tracer.cli.options import STEP_PLACE
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.places import StepPlace
from specscope.viewer.cli.view import check_num_files, check_place, first_view
from specscope.viewer.runs.catalogue import Run
from specscope.viewer.screens.view import View
from specscope.viewer.serve.listener import Listener
from specscope.viewer.serve.server import serve
from specscope.viewer.serve.server_child import AHEAD

LINUX = sys.platform.startswith("linux")


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


def visit(address: str, host: str) -> socket.socket:
    """Opens a page's connection, as a browser does that calls the server by the name ``host``; it stays open."""
    port = int(address.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    lines = ["GET /_stcore/stream HTTP/1.1", f"Host: {host}:{port}", f"Origin: http://{host}:{port}"]
    lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: c3BlY3Njb3BlIHZpZXdlcg==", "", ""]
    connection.sendall("\r\n".join(lines).encode("ascii"))
    return connection


def answer_to(address: str, host: str) -> int:
    """The status of the answer to a page's connection."""
    with visit(address, host) as connection:
        return int(connection.recv(4096).split()[1])


def is_gone(pid: int) -> bool:
    """Whether the process has ended, or does so within some seconds."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cwd").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}/cwd").exists()


@pytest.mark.skipif(not LINUX, reason="looks for children in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_it_answers_and_ends_with_its_child(make_trace: Callable[..., Path], number: int, code: int) -> None:
    with viewer(str(make_trace()), group=True) as (process, address, line):
        assert line == f"SpecScope is at {address}  (Ctrl-C ends it)\n"
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as reply:
            assert reply.status == 200
        children = children_of(process.pid)
        assert len(children) == 1
        with visit(address, "127.0.0.1"):  # a page that is open does not keep it alive
            os.killpg(process.pid, number)  # as a terminal does: to the command and to its child
            out, err = process.communicate(timeout=20)
        assert process.returncode == code
        assert (out + err).strip() == ""  # a line feed behind the ^C
        assert not Path(f"/proc/{children[0]}").exists()
        port = int(address.rpartition(":")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.skipif(not LINUX, reason="looks for children in /proc")
def test_a_signal_to_the_command_alone_ends_its_child_too(make_trace: Callable[..., Path]) -> None:
    with viewer(str(make_trace())) as (process, _, _):
        (child,) = children_of(process.pid)
        process.terminate()
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 143
        assert not Path(f"/proc/{child}").exists()


@pytest.mark.skipif(not LINUX, reason="looks at addresses in /proc")
def test_it_listens_on_the_loopback_address_alone(make_trace: Callable[..., Path]) -> None:
    trace = make_trace()
    hostile = trace.parent / ".streamlit" / "config.toml"
    hostile.parent.mkdir()
    hostile.write_text('[server]\naddress = "0.0.0.0"\nbaseUrlPath = "x"\nallowedHosts = ["*"]\n', encoding="utf-8")
    with viewer(folder=trace.parent) as (_, address, _):  # no FILE: the folder's own
        assert answer_to(address, "127.0.0.1") == 101
        assert answer_to(address, "localhost") == 101
        assert answer_to(address, "evil.example") == 403, "a name that is bound to this machine by another site's page"
        port = int(address.rpartition(":")[2])
        suffix = f":{port:04X}"
        tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
        rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
        assert {row[1] for row in rows if row[1].endswith(suffix) and row[3] == "0A"} == {f"0100007F{suffix}"}


@pytest.mark.skipif(not LINUX, reason="looks for children in /proc")
def test_the_child_ends_even_when_the_command_is_killed(make_trace: Callable[..., Path]) -> None:
    with viewer(str(make_trace())) as (process, _, _):
        (child,) = children_of(process.pid)
        process.kill()
        process.communicate(timeout=20)
        assert is_gone(child)


def test_files_that_are_no_traces(tmp_path: Path, make_trace: Callable[..., Path]) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n", encoding="utf-8")
    assert "is this a trace?" in refused(str(make_trace()), str(tmp_path / "bad.jsonl"))
    assert "no such file" in refused(str(tmp_path / "none.jsonl"))


def test_a_line_that_is_no_record_is_named(make_trace: Callable[..., Path]) -> None:
    path = make_trace(run_end=False)
    with path.open("ab") as file:
        file.write(b"nonsense\n")
    assert "line 7: not JSON" in refused(str(path))


def test_a_step_that_is_not_there(make_trace: Callable[..., Path]) -> None:
    said = refused(str(make_trace()), "--at", "0/3")
    assert said == "error: got --at 0/3, but a.jsonl's turn 0 has steps 0 to 2\n"


def test_places(make_trace: Callable[..., Path]) -> None:
    assert STEP_PLACE.convert("1/20", None, None) == StepPlace(1, 20)
    for text in ("", "1", "1/", "-1/0", "1/2/3", "1/2\n", "٣/0", "1/2000000000"):
        with pytest.raises(UsageError, match="wanted TURN/STEP"):
            STEP_PLACE.convert(text, None, None)
    for num_files in (0, 3):
        with pytest.raises(UsageError, match="wanted one, or the two of a diff"):
            check_num_files(num_files)
    with TraceReader(make_trace(turns=[[1, 2], []])) as reader:
        check_place(StepPlace(0, 1), reader)
        for place, words in (
            (StepPlace(2, 0), "turns 0 to 1"),
            (StepPlace(0, 2), "steps 0 to 1"),
            (StepPlace(1, 0), "no steps"),
        ):
            with pytest.raises(UsageError, match=words):
                check_place(place, reader)


def test_the_link_to_a_place(make_trace: Callable[..., Path]) -> None:
    runs = [Run("a.jsonl", Path("/x/a.jsonl")), Run("b & <c>.jsonl", Path("/x/b & <c>.jsonl"))]
    names = [run.name for run in runs]
    for files, page in ((runs[:1], "step"), (runs, "diff")):
        wanted = first_view(files, StepPlace(1, 2))
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlencode(wanted.to_query())))
        found = View.from_query(query, names, len(files))
        assert (found.page, found.turn, found.step) == (page, 1, 2)
        assert [found.baseline, found.candidate] == (names if page == "diff" else [None, None])


def test_a_missing_tokenizer(make_trace: Callable[..., Path]) -> None:
    assert "no tokenizer at" in refused(str(make_trace()), "--tokenizer", "nowhere.json")


def test_a_port_that_is_taken(make_trace: Callable[..., Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in refused(str(make_trace()), "--port", str(port))
    assert Listener.of("127.0.0.1", (), port).free_port() == port


def test_a_default_port_that_is_taken_at_the_last_moment(
    make_trace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another server answers there, and is not mistaken for ours."""
    addresses: list[str] = []

    def ready(address: str) -> None:
        addresses.append(address)
        raise KeyboardInterrupt

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(Listener, "free_port", lambda self: port)
        with pytest.raises(KeyboardInterrupt):
            serve([str(make_trace())], Listener.of("127.0.0.1", (), None), ready)
    (address,) = addresses
    assert address != f"http://127.0.0.1:{port}"
    assert capfd.readouterr().err == ""


def test_the_command_refuses_to_expose_and_to_listen_elsewhere(make_trace: Callable[..., Path]) -> None:
    assert "--expose NAME" in refused(str(make_trace()), "--host", "0.0.0.0")


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
    files = [path for path in folder.rglob("*.py") if path.stem not in ("__init__", "app")]
    modules = [".".join(("specscope.viewer", *path.relative_to(folder).with_suffix("").parts)) for path in files]
    assert len(modules) > 50
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'specscope.engine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, stderr=subprocess.DEVNULL).returncode == 0


def test_what_the_server_loads_ahead_does_not_load_streamlit() -> None:
    code = f"import sys, {', '.join(AHEAD)}; sys.exit('streamlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_entry_point_is_installed() -> None:
    assert shutil.which(str(COMMAND))
