"""The documents use plain English: ``docs/language.py`` finds no phrase of ``docs/banned-phrases.txt`` in them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from support.traces import ROOT

PROGRAM = ROOT / "docs" / "language.py"
LANGUAGE = runpy.run_path(str(PROGRAM))
PHRASES = (ROOT / "docs" / "banned-phrases.txt").read_text(encoding="utf-8")
LIST = """\
enforced: documents
is no trace => is not a trace
hangs on => depends on
a generator of its own. => its own generator
"""


def hits(path: Path) -> list[tuple[int, str]]:
    """Line and phrase of each hit in a file, by ``LIST``."""
    return [(hit.line, hit.phrase) for hit in LANGUAGE["hits_in"](path, LANGUAGE["read_list"](LIST), path.parent)]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_enforced_parts_have_no_banned_phrase() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert not done.stderr


def test_the_documents_are_enforced_and_all_are_read() -> None:
    assert "documents" in LANGUAGE["read_list"](PHRASES).enforced
    names = {path.relative_to(ROOT).as_posix() for path in LANGUAGE["files_of"]("documents")}
    documents = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert names == documents | {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "sample_traces/README.md"}
    for room in ("schemas", "tracer", "adapters", "engine", "viewer"):
        assert LANGUAGE["files_of"](room)


def test_no_listed_phrase_is_in_what_replaces_one() -> None:
    banned = LANGUAGE["read_list"](PHRASES)
    for phrase, better in banned.better.items():
        assert not banned.pattern().search(better), (phrase, better)


def test_a_phrase_is_found_across_lines_and_whatever_its_case(tmp_path: Path) -> None:
    text = "Fine.\n\nWhat it does Hangs\non the tree. A file that is no trace.\n"
    assert hits(written(tmp_path / "a.md", text)) == [(3, "Hangs on"), (4, "is no trace")]


def test_a_phrase_inside_other_words_is_none(tmp_path: Path) -> None:
    text = "This is no traceback. It overhangs on purpose, with a generator of its own making.\n"
    assert hits(written(tmp_path / "a.md", text)) == []


def test_code_links_and_generated_tables_of_documents_are_not_read(tmp_path: Path) -> None:
    text = (
        "```text\nhangs on\n```\n`hangs on`, [link](hangs on)\n<!-- table: Step -->\n| hangs on |\n<!-- end -->\n"
        "It hangs on this.\n"
    )
    assert hits(written(tmp_path / "a.md", text)) == [(8, "hangs on")]


def test_strings_and_docstrings_of_code_are_read_and_comments_are_not(tmp_path: Path) -> None:
    text = (
        '"""A module.\n\nIt hangs on nothing.\n"""\n\nname = 1  # hangs on\n'
        'message = f"{name} is no trace"\nlonger = "it hangs "\\\n    "on"\n'
    )
    assert hits(written(tmp_path / "a.py", text)) == [(3, "hangs on"), (7, "is no trace"), (8, "hangs on")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hangs on", "line 1: got 'hangs on', wanted 'phrase => better'"),
        ("a => b\n\nA => c", "line 3: 'a' is listed twice"),
        ("enforced: documents tests", r"got enforced \['tests'\], wanted some of documents, schemas"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LANGUAGE["read_list"](text)


def test_a_part_that_does_not_exist_is_refused() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "tests"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("got tests, wanted some of documents, schemas, tracer, adapters, engine, viewer")


def test_make_check_runs_it() -> None:
    done = subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python docs/language.py" in done.stdout
