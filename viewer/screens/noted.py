"""Notes on steps, as pages read and keep them."""

from __future__ import annotations

import contextlib

import streamlit as st

from specscope.tracer.errors import UsageError
from specscope.tracer.files.notes import Note, NotedStep, notes_path, read_notes, write_note
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.fragments import note

#: In the session's state: why a note could not be kept.
PROBLEM = "note_problem"


def notes_of(reader: TraceReader) -> dict[NotedStep, Note]:
    """The notes on the run that ``reader`` reads."""
    return read_notes(reader.path, reader.manifest.run_id)


def notes_stamp(reader: TraceReader) -> int:
    """Differs once a note was written: the file only grows."""
    with contextlib.suppress(OSError):
        return notes_path(reader.path).stat().st_size
    return 0


def keep_note(reader: TraceReader, place: NotedStep, text: str) -> None:
    """Writes a note; where that fails, the page says so when it is drawn next."""
    try:
        write_note(reader.path, place, text, run_id=reader.manifest.run_id)
    except UsageError as error:
        st.session_state[PROBLEM] = str(error)


def show_note_problem() -> None:
    """Says why the last note could not be kept, once."""
    problem = st.session_state.pop(PROBLEM, None)
    if problem is not None:
        st.html(note("bad", "The note was not kept", [problem]))
