"""The report as Markdown, for the step summary of a CI job.

Nothing of a trace can become markup: every value is in ``<code>``, and each of its characters that Markdown, HTML or a
table could read is a character reference. Sections that would pass the size bound are left out, and the page says so.
"""

from __future__ import annotations

from collections.abc import Iterable

from specscope.tracer.report.card import Card, Row, card_of, one_line
from specscope.tracer.report.report import Report

MAX_BYTES = 900_000  # GitHub refuses a step's summary of more than 1 MiB
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,=/;-")
_SIGNS = {"good": "✅", "bad": "❌", "unsure": "⚠️"}
_LEFT_OUT = "\nMore was left out to keep this page small; the json report has all of it.\n"


def render(report: Report) -> str:
    """The page: the card, the roots, what surrounds them. At most ``MAX_BYTES`` in UTF-8."""
    card = card_of(report)
    sections = [_table(("", ""), ((row.name, code(row.value)) for row in [*card.rows, *card.command_rows]))]
    if card.roots:
        sections.append(_roots(card))
    sections.append(_details("What was compared, and against which noise floor", card.notes))
    return _joined(f"## {_SIGNS[card.tone]} specscope diff: {escape(card.title)}\n", sections)


def render_error(error: str) -> str:
    """Why there is no verdict."""
    return f"## ⚠️ specscope diff: no verdict\n\n{code(one_line(error))}\n"


def escape(text: str) -> str:
    """``text`` as text of a Markdown page or table cell: ASCII that could be syntax becomes a character reference."""
    return "".join(c if c in _PLAIN or not c.isascii() else f"&#{ord(c)};" for c in text)


def code(text: str) -> str:
    """``text`` in monospace; an empty one stays empty."""
    return f"<code>{escape(text)}</code>" if text else ""


def _joined(page: str, sections: Iterable[str]) -> str:
    """The heading and as many sections as fit."""
    for section in sections:
        longer = page + "\n" + section
        if len((longer + _LEFT_OUT).encode()) > MAX_BYTES:
            return page + _LEFT_OUT
        page = longer
    return page


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join(lines) + "\n"


def _roots(card: Card) -> str:
    names = ("root", "at", "prompt", "phase", "field", "kind", "inherited")
    rows = [(str(r.number), r.at, code(r.prompt), r.phase, code(r.field), r.kind, str(r.inherited)) for r in card.roots]
    more = card.num_roots - len(card.roots)
    return _table(names, rows) + (f"\nand {more} more; the json report lists them\n" if more else "")


def _details(title: str, rows: list[Row]) -> str:
    body = _table(("", ""), ((row.name, code(row.value)) for row in rows))
    return f"<details><summary>{title}</summary>\n\n{body}\n</details>\n"
