"""What people noted on the steps of a trace, in a file beside it: ``TRACE.notes``, a JSON line for each note.

Lines are only ever appended, so nothing that somebody wrote is lost: a later note on a step takes the place of an
earlier one, and an empty text takes the note away. A note belongs to the run that it was written on: where another run
has taken the trace's place, its notes are not shown. A line that is not a note is passed over.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from specscope.tracer.errors import UsageError

FORMAT = "specscope.note/1"
LONGEST_NOTE = 4_000  # characters
#: A file of more than this is neither read nor written.
MOST_BYTES = 4 << 20


class NotedStep(NamedTuple):
    """A step of a run."""

    turn: int  # its number in the trace
    step: int


@dataclass(frozen=True, kw_only=True)
class Note:
    """What somebody noted on a step."""

    run_id: str
    turn: int
    step: int
    text: str  # raw; empty: there is no note any more
    written: str  # UTC, ISO 8601


def notes_path(trace: Path) -> Path:
    """Where the notes on the trace at ``trace`` are kept."""
    return trace.with_name(trace.name + ".notes")


def read_notes(trace: Path, run_id: str) -> dict[NotedStep, Note]:
    """The notes on the run ``run_id`` of the trace at ``trace``, by step, in the order of the steps.

    Empty where there are none, or the file cannot be read.
    """
    path = notes_path(trace)
    try:
        lines = path.read_bytes().splitlines() if path.stat().st_size <= MOST_BYTES else []
    except OSError:
        return {}
    notes = {}
    for note in filter(None, map(_parsed, lines)):
        if note.run_id == run_id:
            notes[NotedStep(note.turn, note.step)] = note
    return {place: notes[place] for place in sorted(notes) if notes[place].text}


def write_note(trace: Path, place: NotedStep, text: str, *, run_id: str) -> None:
    """Notes ``text`` on a step; an empty one takes the note away.

    Raises:
        UsageError: where it is too long, or the file cannot be written.
    """
    path, text = notes_path(trace), text.strip()
    if len(text) > LONGEST_NOTE:
        raise UsageError(f"got a note of {len(text):,} characters, wanted at most {LONGEST_NOTE:,}")
    written = datetime.now(UTC).isoformat(timespec="seconds")
    note = Note(run_id=run_id, turn=place.turn, step=place.step, text=text, written=written)
    line = orjson.dumps({"format": FORMAT, **asdict(note)}) + b"\n"
    try:
        with path.open("ab") as file:
            size = file.tell()
            if size + len(line) > MOST_BYTES:
                raise UsageError(f"{path.name} is full: it may hold {MOST_BYTES >> 20} MB; move it elsewhere")
            file.write((b"" if _ends_whole(path, size) else b"\n") + line)
    except OSError as error:
        raise UsageError(f"the note could not be written to {path.name}: {error.strerror}") from error


def _ends_whole(path: Path, size: int) -> bool:
    """Whether the last line is whole: a disk may have been full."""
    if not size:
        return True
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _parsed(line: bytes) -> Note | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return None
    return _note_of(value)


def _note_of(value: dict[str, Any]) -> Note | None:
    numbers = [entry for entry in map(value.get, ("turn", "step")) if type(entry) is int and entry >= 0]
    texts = [entry for entry in map(value.get, ("run_id", "text", "written")) if isinstance(entry, str)]
    if len(numbers) != 2 or len(texts) != 3:
        return None
    (turn, step), (run_id, text, written) = numbers, texts
    if len(text) > LONGEST_NOTE:
        return None
    return Note(run_id=run_id, turn=turn, step=step, text=text, written=written)
