"""What the inspector shows: markup, and what it says of each node. Pure.

All markup is XHTML, one element at the top: the browser reads it as XML, so that a text that was not escaped is an
visible error, never markup that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from specscope.viewer.drawing.fragments import heading, quiet
from specscope.viewer.drawing.frames import attribute
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.style import palette


@dataclass(frozen=True)
class Board:
    """One view of a step, or of two side by side.

    In ``html``, elements with ``data-node`` answer to the pointer: all of one name light up together, and the element
    of class ``ss-panel`` shows the name's note. A click on ``data-do`` asks the page for what it says, one on
    ``data-copy`` copies the raw text of that name. An element of class ``ss-raw`` with ``data-raw`` shows that text
    once it is opened.
    """

    html: Markup  # XHTML; one element
    notes: Mapping[str, Markup] = field(default_factory=dict)  # by node name: what the panel shows; one element each
    raw: Mapping[str, str] = field(default_factory=dict)  # by name: text shown as it is
    strip: Markup = NOTHING  # the overview above it: an SVG, or nothing


def card(name: str, title: str, aside: str, content: Markup) -> Markup:
    """A card of the board; its class is ``ss-card-NAME``."""
    return markup(
        '<section class="ss-box ss-card-{name}">{heading}{content}</section>',
        name=html_text(name),
        heading=heading(title, aside),
        content=content,
    )


def columns(*parts: Iterable[Markup], kind: str) -> Markup:
    """Columns of cards; ``kind`` names the widths, as the style sheet has them: ``wide-narrow``, ``halves``, or
    ``beside-on-paper``, one below the other on a screen."""
    cells = joined(markup("<div>{part}</div>", part=joined(part)) for part in parts)
    return markup('<div class="ss-columns ss-{kind}">{cells}</div>', kind=html_text(kind), cells=cells)


def board_of(*parts: Markup) -> Markup:
    """All parts, one below another, in the one element that a board is."""
    return markup(
        '<div xmlns="http://www.w3.org/1999/xhtml" class="ss-board">{parts}</div>',
        parts=joined(parts),
    )


def panel(hint: str, first: str | None = None) -> Markup:
    """Where the note of a node is shown; until a node is pointed at, the note of ``first``, and the hint."""
    return markup(
        '<div class="ss-panel"{first}>{hint}</div>',
        first=NOTHING if first is None else attribute("data-first", first),
        hint=quiet(hint),
    )


def raw_record(name: str, title: str) -> Markup:
    """Room for a raw text of the board, closed at first."""
    return markup(
        '<details class="ss-raw" data-raw="{name}"><summary>{title}</summary>'
        '<button type="button" data-copy="{name}" aria-label="Copy: {title}">Copy</button>'
        '<pre tabindex="0"></pre></details>',
        name=html_text(name),
        title=html_text(title),
    )


@cache
def style_sheet() -> str:
    """Styles of all fragments and drawings; the colours are apart, in ``palette``."""
    sheets = sorted((Path(__file__).parent / "style").glob("*.css"))
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def whole_style_sheet() -> str:
    """Colours and styles, for a page that has neither."""
    return palette.style_sheet() + style_sheet()
