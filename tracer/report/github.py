"""The report as workflow commands of GitHub Actions: at most one annotation a pair, about the first root.

Escaping as GitHub documents it: in the message ``%``, CR and LF; in a property also ``:`` and ``,``. Nothing else is
printed beside the annotation but words of ours, since a runner looks for commands in every line of a log.
"""

from __future__ import annotations

from specscope.tracer.naming.text import printable, shorten
from specscope.tracer.report.card import Card, card_of
from specscope.tracer.report.report import Report

MAX_MESSAGE = 4000  # characters; GitHub cuts long annotations
LEVELS = {"good": "notice", "bad": "error", "unsure": "error"}


def render(report: Report) -> str:
    """One line: an error where the verdict fails, a warning where it passes with a remark, a notice for ties, plain
    words where nothing differs."""
    card, verdict = card_of(report), report.verdict
    if verdict.verdict == "equal" and not verdict.remarks:
        return f"specscope: {card.title}\n"
    level = "warning" if verdict.remarks and not verdict.exit_code else LEVELS[card.tone]
    return _annotation(level, f"specscope diff: {card.title}", _message(card))


def render_error(error: str) -> str:
    """Why there is no verdict."""
    return _annotation("error", "specscope diff: no verdict", printable(error))


def _message(card: Card) -> str:
    return "\n".join(f"{row.name or 'or'}: {row.value}" for row in [*card.rows, *card.command_rows])


def _annotation(level: str, title: str, message: str) -> str:
    return f"::{level} title={escape_property(title)}::{escape_message(shorten(message, MAX_MESSAGE))}\n"


def escape_message(text: str) -> str:
    """``text`` as the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """``text`` as the value of a workflow command's property."""
    return escape_message(text).replace(":", "%3A").replace(",", "%2C")
