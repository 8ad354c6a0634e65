"""What the inspector shows: markup, and what it says of each node. Pure.

All markup is XHTML, one element at the top: the browser reads it as XML, so that a text that was not escaped is an
error to be seen, never markup that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from specscope.viewer.drawing import palette
from specscope.viewer.drawing.fragments import XHTML, heading


@dataclass(frozen=True)
class Board:
    """One view of a step, or of two side by side.

    In ``html``, elements with ``data-node`` answer to the pointer: all of one name light up together, and the element
    of class ``ss-panel`` shows the name's note. A click on ``data-do`` asks the page for what it says, one on
    ``data-copy`` copies the raw text of that name. An element of class ``ss-raw`` with ``data-raw`` shows that text
    once it is opened.
    """

    html: str  # XHTML; one element
    notes: Mapping[str, str] = field(default_factory=dict)  # by node name: what the panel shows, XHTML of one element
    raw: Mapping[str, str] = field(default_factory=dict)  # by name: text shown as it is
    strip: str = ""  # the overview above it: an SVG, or nothing


def card(name: str, title: str, aside: str, *parts: str) -> str:
    """A card of the board; ``name`` is its class, ``ss-card-NAME``, and the parts are markup."""
    return f'<section class="ss-box ss-card-{name}">{heading(title, aside)}{"".join(parts)}</section>'


def columns(*parts: Iterable[str], kind: str) -> str:
    """Columns of cards; ``kind`` names the widths, as the style sheet has them: ``wide-narrow`` or ``halves``."""
    cells = "".join(f"<div>{''.join(part)}</div>" for part in parts)
    return f'<div class="ss-columns ss-{kind}">{cells}</div>'


def board_of(*parts: str) -> str:
    """All parts, below each other, in the one element that a board is."""
    return f'<div xmlns="{XHTML}" class="ss-board">{"".join(parts)}</div>'


def raw_record(name: str, title: str) -> str:
    """Room for a raw text of the board, closed at first."""
    return (
        f'<details class="ss-raw" data-raw="{name}"><summary>{title}</summary>'
        f'<button type="button" data-copy="{name}">Copy</button><pre></pre></details>'
    )


@cache
def style_sheet() -> str:
    """Styles of all fragments and drawings; the colours are apart, in ``palette``."""
    sheets = sorted(Path(__file__).parent.glob("*.css"))
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def whole_style_sheet() -> str:
    """Colours and styles, for a page that has neither."""
    return palette.style_sheet() + style_sheet()
