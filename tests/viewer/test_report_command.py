"""``specscope report``: what it writes, what it refuses, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.called import specscope
from support.commands import Outcome
from support.traces import EAGER, FAULTY, load, store

from specscope.tracer.cli.main import main

Report = Callable[..., Outcome]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Report:
    """Runs the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["specscope", "report", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert isinstance(code, int)
        return Outcome(code, said.out, said.err)

    return run


def test_it_writes_one_file_and_says_what_it_says(tmp_path: Path) -> None:
    done = specscope("report", EAGER, FAULTY, "-o", tmp_path / "diff.html")
    assert done.code == 0
    assert done.out.startswith(f"wrote {tmp_path / 'diff.html'} (0.")
    said = "DIFFERENT: the candidate rotates node ·return by position 31, wanted 30"
    assert f"): {said} at turn 0 (prompt function), step 0, position 29\n" in done.out
    assert (tmp_path / "diff.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["diff.html"]


def test_of_one_trace(report: Report) -> None:
    done = report(FAULTY)
    assert done.code == 0
    assert "wrote report.html" in done.out
    assert "VIOLATED: 2 invariants, 106 times" in done.out
    assert Path("report.html").stat().st_size < 3_000_000


def test_a_file_that_is_there_is_kept_unless_asked(report: Report) -> None:
    Path("report.html").write_text("mine", encoding="utf-8")
    done = report(EAGER)
    assert done.code == 2
    assert "report.html exists already" in done.err
    assert Path("report.html").read_text(encoding="utf-8") == "mine"
    assert report(EAGER, "--overwrite").code == 0
    assert "<!DOCTYPE html>" in Path("report.html").read_text(encoding="utf-8")


def test_a_trace_is_never_overwritten(report: Report) -> None:
    copy = store(load(EAGER), Path("eager.jsonl"))
    before = copy.read_bytes()
    Path("link.html").symlink_to(copy)
    for out in ("eager.jsonl", "link.html"):
        for files in ((copy,), (FAULTY, copy)):
            done = report(*files, "-o", out, "--overwrite")
            assert done.code == 2
            assert "it is one of the traces" in done.err
    assert copy.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.jsonl"], "no such file"),
        ([EAGER, "none.jsonl"], "no such file"),
        (["empty.jsonl"], "the file is empty"),
        (["text.jsonl"], "is this a trace?"),
        ([EAGER, "-o", "nowhere/report.html"], "the folder nowhere does not exist"),
        ([EAGER, "--turn", "7"], "got turn 7, wanted one of the trace: 0..2"),
        ([EAGER, "--step", "700"], "got step 700, wanted one of turn 0"),
        ([EAGER, "--step", "0", "--all-steps"], "pass only one of them"),
        ([EAGER, FAULTY, "--step", "0"], "choose steps of one trace"),
        ([EAGER, "--allow", "seed"], "name the candidate as well"),
        ([EAGER, FAULTY, "--tolerance", "nan"], "wanted a number"),
        ([EAGER, "--tokenizer", "nowhere"], "no tokenizer at"),
    ],
)
def test_what_is_refused_leaves_no_file(report: Report, arguments: list[str | Path], words: str) -> None:
    Path("empty.jsonl").touch()
    Path("text.jsonl").write_text("{}\n", encoding="utf-8")
    done = report(*arguments)
    assert done.code == 2
    assert words in done.err
    assert not Path("report.html").exists()


def test_incomparable_runs_give_a_report_and_exit_0(report: Report) -> None:
    lines = load(EAGER)
    lines[0]["teacher"]["weights_digest"] = "0" * 32
    other = store(lines, Path("other.jsonl"))
    done = report(EAGER, other)
    assert done.code == 0
    assert "INCOMPARABLE" in done.out
    assert report(EAGER, other, "--allow", "teacher.weights_digest", "-o", "allowed.html").code == 0


def test_a_truncated_trace_gives_a_report(report: Report) -> None:
    lines = load(EAGER)[:12]
    done = report(store(lines, Path("cut.jsonl")))
    assert done.code == 0
    assert "TRUNCATED" in done.out
    assert "NOT JUDGED" in report(EAGER, "cut.jsonl", "-o", "pair.html").out


def test_a_hostile_file_name_is_said_visibly(report: Report) -> None:
    done = report(EAGER, "-o", "a\x1b[2Jb.html")
    assert done.code == 0
    assert "\x1b" not in done.out


def test_it_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'streamlit', 'plotly', 'numpy', 'pandas'}"
    code = f"import sys, specscope.viewer.cli.report; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
