"""Notes on steps: the last one on a step is shown, and nothing that was written is ever lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specscope.tracer.errors import UsageError
from specscope.tracer.files.notes import (
    LONGEST_NOTE,
    MOST_BYTES,
    NotedStep,
    notes_path,
    read_notes,
    write_note,
)


def texts_of(trace: Path, run_id: str = "run") -> dict[tuple[int, int], str]:
    return {(place.turn, place.step): note.text for place, note in read_notes(trace, run_id).items()}


def test_the_last_note_on_a_step_counts_and_the_earlier_ones_stay_in_the_file(tmp_path: Path) -> None:
    trace = tmp_path / "a.jsonl"
    assert read_notes(trace, "run") == {}
    for step, text in ((3, "first"), (1, "two\nlines \u202e"), (3, "second"), (4, "gone"), (4, " \n")):
        write_note(trace, NotedStep(0, step), text, run_id="run")
    assert texts_of(trace) == {(0, 1): "two\nlines \u202e", (0, 3): "second"}
    assert list(texts_of(trace)) == [(0, 1), (0, 3)]
    assert len(notes_path(trace).read_text(encoding="utf-8").splitlines()) == 5
    assert "first" in notes_path(trace).read_text(encoding="utf-8")


def test_notes_of_another_run_in_the_same_place_are_not_shown(tmp_path: Path) -> None:
    trace = tmp_path / "a.jsonl"
    write_note(trace, NotedStep(0, 0), "of the run before", run_id="before")
    assert texts_of(trace) == {}
    write_note(trace, NotedStep(0, 0), "of this", run_id="run")
    assert texts_of(trace, "before") == {(0, 0): "of the run before"}
    assert texts_of(trace) == {(0, 0): "of this"}


def test_a_torn_line_costs_no_other_note(tmp_path: Path) -> None:
    trace = tmp_path / "a.jsonl"
    write_note(trace, NotedStep(0, 0), "whole", run_id="run")
    with notes_path(trace).open("ab") as file:
        file.write(b'{"format":"specscope.note/1","run_id":"run","tu')
    write_note(trace, NotedStep(0, 1), "after it", run_id="run")
    assert texts_of(trace) == {(0, 0): "whole", (0, 1): "after it"}


GOOD = {"format": "specscope.note/1", "run_id": "run", "turn": 0, "step": 0, "text": "x", "written": ""}
BAD: list[dict[str, object]] = [
    {},
    {**GOOD, "format": "specscope.note/2"},
    {**GOOD, "turn": -1},
    {**GOOD, "turn": True},
    {**GOOD, "text": 1},
    {name: value for name, value in GOOD.items() if name != "text"},
]


@pytest.mark.parametrize("line", [b"[]", b"\xff", *(json.dumps(value).encode() for value in BAD)])
def test_what_is_no_note_is_passed_over(tmp_path: Path, line: bytes) -> None:
    trace = tmp_path / "a.jsonl"
    notes_path(trace).write_bytes(line + b"\n" + json.dumps({**GOOD, "step": 1}).encode() + b"\n")
    assert texts_of(trace) == {(0, 1): "x"}


def test_a_note_that_cannot_be_kept_is_an_error_in_words(tmp_path: Path) -> None:
    trace = tmp_path / "a.jsonl"
    with pytest.raises(UsageError, match="at most 4,000"):
        write_note(trace, NotedStep(0, 0), "x" * (LONGEST_NOTE + 1), run_id="run")
    with pytest.raises(UsageError, match="could not be written"):
        write_note(tmp_path / "no folder" / "a.jsonl", NotedStep(0, 0), "x", run_id="run")
    notes_path(trace).write_bytes(b"\n" * MOST_BYTES)
    with pytest.raises(UsageError, match="is full"):
        write_note(trace, NotedStep(0, 0), "x", run_id="run")
    assert notes_path(trace).stat().st_size == MOST_BYTES


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=20)), max_size=12))
def test_notes_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[int, str]]
) -> None:
    trace = tmp_path_factory.mktemp("notes") / "a.jsonl"
    wanted: dict[tuple[int, int], str] = {}
    for step, text in written:
        write_note(trace, NotedStep(1, step), text, run_id="run")
        wanted[1, step] = text.strip()
    assert texts_of(trace) == {place: text for place, text in sorted(wanted.items()) if text}
