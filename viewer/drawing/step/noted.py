"""What somebody noted on a step: a field to write it, and the text as it is read elsewhere. Pure."""

from __future__ import annotations

from typing import NamedTuple

from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.frames import attribute
from specscope.viewer.drawing.markup import Markup, html_text, joined, markup

#: By which name of a board's raw texts the field finds the note.
RAW = "note"
MOST_CHARACTERS = 4_000


class NoteField(NamedTuple):
    """Where a note is written."""

    step: int
    text: str  # raw; empty for none
    written: str  # when; empty for never
    place: str  # names run, turn and step, so that what is not saved yet is not mistaken for another's


def note_card(field: NoteField) -> Markup:
    """The field. Its text is in the board's raw texts, since a browser must get it exactly as it was written."""
    return card(
        "note",
        "Note",
        f"written {field.written}" if field.written else "kept beside the trace, and in its report",
        markup(
            '<div class="ss-noted"><textarea rows="3" maxlength="{most}" aria-label="Note on step {step}"'
            '{place} data-step="{step}"></textarea><button type="button">Save note</button>'
            '<span role="status"></span></div>',
            most=MOST_CHARACTERS,
            step=field.step,
            place=attribute("data-place", field.place),
        ),
    )


def note_text(text: str) -> Markup:
    """A note to be read."""
    lines = joined(
        markup("<div>{line}</div>", line=html_text(line) if line else markup("&#160;")) for line in text.splitlines()
    )
    return markup(
        '<div class="ss-note ss-info ss-written"><b aria-hidden="true">✎</b><div>{lines}</div></div>', lines=lines
    )
