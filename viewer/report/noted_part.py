"""What somebody noted on the steps of a trace, as a card of the report: a report must stand alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from specscope.tracer.files.notes import Note, NotedStep
from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import quiet
from specscope.viewer.drawing.labels.manifest import created_text
from specscope.viewer.drawing.markup import NOTHING, Markup, joined
from specscope.viewer.drawing.step.noted import note_text
from specscope.viewer.drawing.tables.invariants import Lead


def notes_card(notes: Mapping[NotedStep, Note], lead: Lead, *, of: str = "") -> Markup:
    """All notes, each with a link where its step is drawn; nothing where there are none. ``of`` names the run."""
    if not notes:
        return NOTHING
    listed = joined(
        joined([quiet(_where(note)), note_text(note.text), lead(place.turn, place.step)])
        for place, note in notes.items()
    )
    title = f"Notes on {of}" if of else "Notes"
    return card("notes", title, counted(len(notes), "step"), listed)


def _where(note: Note) -> str:
    return f"turn {note.turn}, step {note.step}, written {created_text(note.written)}"
