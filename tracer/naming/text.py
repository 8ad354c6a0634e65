"""Token text is hostile input. This is the one place that makes it safe to show.

``visible`` leaves nothing that moves a cursor, reorders a line or hides: control, format and unassigned characters
become escapes. ``html_text`` is ``visible`` made safe for HTML and SVG. Rich markup and Markdown are never built from
token text at all.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

#: Nodes of a path that are all named.
LONGEST_PATH = 6
_NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _escape(character: str) -> str:
    point = ord(character)
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


#: More spaces than can be counted at a glance.
_SPACES = re.compile("·{4,}")
#: A backslash that would read as the escape of a newline, a tab or a return, though it is the token's own.
_ESCAPE_LIKE = re.compile(r"\\(?=[ntr])")
#: Few fonts have these signs as wide and as clear as letters are.
_AS_ESCAPES = {"⏎": r"\n", "⇥": r"\t", "␍": r"\r"}


def visible(text: str) -> str:
    """``text`` on one line with every character to be seen: newline ⏎, tab ⇥, leading and trailing spaces ·."""
    shown = text
    if not text.isprintable():  # what is printable hides nothing: that is most text, told at once
        shown = "".join(_NAMED.get(c) or (_escape(c) if unicodedata.category(c) in _HIDDEN else c) for c in text)
    inner = shown.strip(" ")
    if not inner:
        return "·" * len(shown)
    leading = len(shown) - len(shown.lstrip(" "))
    trailing = len(shown) - len(shown.rstrip(" "))
    return "·" * leading + inner + "·" * trailing


def legible(shown: str) -> str:
    r"""A visible text of a token for any font and reader: ``\n\n`` where it has ⏎⏎, and ``·×7`` for seven spaces."""
    text = _ESCAPE_LIKE.sub(r"\\\\", shown)
    for sign, escape in _AS_ESCAPES.items():
        text = text.replace(sign, escape)
    return _SPACES.sub(lambda spaces: f"·×{len(spaces[0])}", text)


def figures(number: float, digits: int = 3, *, plain_to: float = 1e6) -> str:
    """A number to ``digits`` figures, without an exponent up to ``plain_to``: ``110``, ``1,770``, ``0.0038``."""
    short = f"{number:.{digits}g}"
    is_whole = "e" in short or "." not in short
    return f"{float(short):,.0f}" if is_whole and 1 <= abs(number) < plain_to else short


def printable(text: str) -> str:
    """``text`` for a terminal: newlines and tabs stay, every other hidden character becomes an escape."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text)


def html_text(text: str) -> str:
    """``visible(text)`` for HTML and SVG, element content and quoted attributes alike."""
    return html.escape(visible(text), quote=True)


def path_text(texts: Sequence[str], arrow: str) -> str:
    """The texts of a node's path from below the root; of a deep node the first, the last two, and how deep it is."""
    if len(texts) <= LONGEST_PATH:
        return arrow.join(texts)
    return f"{arrow.join([texts[0], '…', *texts[-2:]])} (depth {len(texts)})"


def counted(count: int, noun: str) -> str:
    """``1 step``, ``2,000 later steps``, ``2 pairs of steps``."""
    head, of, rest = noun.partition(" of ")
    return f"{count:,} {head}{'s' if count != 1 else ''}{of}{rest}"


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, the cut marked by an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
