"""The rooms: what may import what, what the base loads, what the wheel installs, and whether the pictures are true."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.traces import EAGER, FUSED, ROOT

ROOMS = ("schemas", "tracer", "adapters", "engine", "viewer")
HEAVY = ("torch", "transformers", "streamlit", "plotly", "numpy")
DOCUMENT = ROOT / "docs" / "architecture.md"
#: Everybody may import these.
COMMON = {"schemas", "tracer.errors"}


def modules() -> dict[str, Path]:
    """Every module of the four rooms, by its dotted name without ``specscope``; a package by its ``__init__``."""
    names = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def room_of(module: str) -> str:
    """The folder that a module lies in; a module directly under a roof is a room by itself."""
    if MODULES[module].name == "__init__.py":
        return module
    parent = module.rpartition(".")[0]
    return module if parent in ROOMS and parent != "schemas" else parent


def imported_modules(path: Path) -> set[str]:
    """The project's modules that ``path`` imports, wherever in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {name for name in submodules if name.removeprefix("specscope.") in MODULES} or {node.module}
    names = {name.removeprefix("specscope.") for name in imported if name.startswith("specscope.")}
    return {name for name in names if name in MODULES}


def imports_between_rooms() -> dict[str, set[str]]:
    """What each room imports of others."""
    rooms: dict[str, set[str]] = {room_of(name): set() for name in MODULES}
    for name, path in MODULES.items():
        own = room_of(name)
        rooms[own] |= {room_of(other) for other in imported_modules(path)} - {own}
    return rooms


IMPORTS = imports_between_rooms()


def allowed_imports() -> dict[str, set[str]]:
    """The table of the document."""
    table = {}
    for room, cell in re.findall(
        r"^\| `([\w.]+)` \| .* \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    ):
        roof = room.partition(".")[0]
        names = [] if cell == "-" else cell.split(", ")
        table[room] = {name if name.partition(".")[0] in ROOMS else f"{roof}.{name}" for name in names}
    return table


ALLOWED = allowed_imports()


def floors() -> list[list[str]]:
    """The engine's floors in the document, the highest first."""
    (picture,) = re.findall(
        r"## Floors of the engine\n.*?```\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL
    )
    return [[f"engine.{name}" for name in line.split()] for line in picture.splitlines()]


def test_the_table_names_every_room_and_no_other() -> None:
    roofs = {
        "tracer",
        "adapters",
        "engine",
        "viewer",
    }  # their __init__ is the front door, which loads what it exports lazily
    assert set(ALLOWED) == set(IMPORTS) - roofs


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_what_the_table_allows_and_all_of_it(room: str) -> None:
    assert IMPORTS[room] - COMMON == ALLOWED[room]


def test_imports_go_one_way() -> None:
    roofs = {
        "schemas": {"schemas"},
        "tracer": {"schemas", "tracer"},
        "adapters": {"schemas", "tracer", "adapters"},
        "engine": {"schemas", "tracer", "engine"},
        "viewer": {"schemas", "tracer", "viewer"},
    }
    for room, others in IMPORTS.items():
        assert {other.partition(".")[0] for other in others} <= roofs[room.partition(".")[0]], room


def test_no_rooms_import_each_other_in_a_circle() -> None:
    graph = {room: others for room, others in IMPORTS.items() if room not in ROOMS or room == "schemas"}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError and names the circle


def test_only_the_laboratory_and_the_command_line_import_the_laboratory() -> None:
    for room, others in IMPORTS.items():
        if not room.startswith(("engine.lab", "engine.cli")):
            assert not [other for other in others if other.startswith("engine.lab")], room


def test_the_picture_of_the_floors_is_true() -> None:
    floor_of = {room: number for number, rooms in enumerate(floors()) for room in rooms}
    assert set(floor_of) == {room for room in ALLOWED if room.startswith("engine.")}
    for room, number in floor_of.items():
        for other in IMPORTS[room] & floor_of.keys():
            assert floor_of[other] > number, f"{room} imports {other}, which is not on a lower floor"


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import specscope.schemas, specscope.tracer",
        "from specscope.tracer.oracle.check import check_trace\n"
        f"from pathlib import Path\nassert check_trace(Path({str(FUSED)!r})).num_steps",
        "from specscope.tracer.compare.diff import diff_traces\n"
        f"from pathlib import Path\nassert diff_traces(Path({str(EAGER)!r}), Path({str(FUSED)!r})).verdict == 'equal'",
        "from click.testing import CliRunner\nfrom specscope.tracer.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0",
        "from click.testing import CliRunner\nfrom specscope.tracer.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['run', '--help']).exit_code == 0",
    ],
    ids=["import", "check", "diff", "help", "run-help"],
)
def test_the_base_loads_nothing_heavy(code: str) -> None:
    assert loaded_after(code) == set()


def test_the_viewer_never_loads_torch() -> None:
    folders = [path for path in (ROOT / "viewer").rglob("*.py") if path.stem not in ("app", "__init__")]
    modules = [".".join(("specscope", *path.relative_to(ROOT).with_suffix("").parts)) for path in sorted(folders)]
    assert "torch" not in loaded_after("\n".join(f"import {name}" for name in modules))


POSIX_ONLY = ("fcntl", "grp", "posix_ipc", "pty", "pwd", "resource", "syslog", "termios", "tty")
POSIX_SIGNALS = ("pthread_sigmask", "pthread_kill", "sigwait", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGPIPE", "SIGALRM")


@pytest.mark.parametrize("room", ["schemas", "tracer", "viewer"])
def test_base_and_viewer_import_without_posix(room: str) -> None:
    paths = sorted(path for path in (ROOT / room).rglob("*.py") if path.stem not in ("app", "__init__"))
    modules = [".".join(("specscope", *path.relative_to(ROOT).with_suffix("").parts)) for path in paths]
    script = (
        "import importlib, signal, sys, typing\n"
        "import asyncio, concurrent.futures, multiprocessing, subprocess, tempfile\n"  # the standard library's own use
        + ("import streamlit\n" if room == "viewer" else "")
        + f"sys.modules.update(dict.fromkeys({POSIX_ONLY!r}))\n"
        f"for name in {POSIX_SIGNALS!r}:\n    vars(signal).pop(name, None)\n"
        f"for name in {modules!r}:\n    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_every_package_of_the_tree_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    in_the_tree = {"specscope"}
    for room in ROOMS:
        for path in (ROOT / room).rglob("__init__.py"):
            in_the_tree.add(".".join(["specscope", *path.parent.relative_to(ROOT).parts]))
    assert listed == in_the_tree


@pytest.mark.slow
def test_the_wheel_installs_specscope_alone_with_all_it_needs(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("package", *ROOMS, "pyproject.toml", "README.md", "LICENSE"):
        source, target = ROOT / name, copy / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(copy)],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"specscope"}
    for wanted in (
        "specscope/__init__.py",
        "specscope/__main__.py",
        "specscope/schemas/py.typed",
        "specscope/schemas/bisection-v1.schema.json",
        "specscope/schemas/pair-result-v1.schema.json",
        "specscope/schemas/trace-v1.schema.json",
        "specscope/schemas/verdict-v2.schema.json",
        "specscope/engine/demo_models/teacher/model.safetensors",
        "specscope/engine/demo_models/teacher/tokenizer.json",
        "specscope/engine/demo_models/drafter/model.safetensors",
        *(
            f"specscope/engine/demo_models/{name}/model.safetensors"
            for name in ("exit_head", "exit_head_2", "exit_head_6")
        ),
        "specscope/engine/demo_models/prompts.jsonl",
        "specscope/engine/lab/bench/suites/demo240.jsonl",
        "specscope/viewer/app.py",
        "specscope/tracer/oracle/invariants/structure.py",
    ):
        assert wanted in names
    assert not [name for name in names if "test" in name.split("/")[1]]


def test_no_page_makes_streamlit_load_pandas() -> None:
    """It would take most of the time that a page needs to open, and a rerun's thread might find it half imported."""
    script = (
        "import sys\nfrom streamlit.testing.v1 import AppTest\n"
        f"sys.argv = ['app.py', {str(EAGER)!r}, {str(FUSED)!r}]\n"
        "for page in ('runs', 'step', 'diff', 'metrics', 'health'):\n"
        f"    app = AppTest.from_file({str(ROOT / 'viewer' / 'app.py')!r}, default_timeout=60)\n"
        "    app.query_params['page'] = page\n    app.run()\n    assert not app.exception\n"
        "    assert app.query_params['page'] in (page, [page])\n"
        "    assert not {'pandas', 'pyarrow'} & set(sys.modules), page\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
