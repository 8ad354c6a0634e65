"""Markup as its own type, so that the type checker finds every place where raw text would enter it.

``html_text`` is the only way from raw text to markup. ``markup`` fills a template, which must be a literal, with
markup and numbers, and ``joined`` puts markup together; whatever else is done to markup gives a plain ``str``, which
none of the drawings accepts.

``Markup`` is a ``NewType`` and not a class that escapes by itself: it costs nothing at run time, is JSON as it stands,
and a mistake is reported when the code is checked, before any trace is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NewType

from specscope.tracer.naming import text as words

Markup = NewType("Markup", str)

NOTHING = Markup("")
#: Texts of up to so many characters are kept once they have been made safe.
MOST_KEPT = 80


def html_text(text: str) -> Markup:
    """Raw text for element content and quoted attributes, with every hidden character made visible."""
    return _short_text(text) if len(text) <= MOST_KEPT else Markup(words.html_text(text))


@lru_cache(maxsize=1 << 14)
def _short_text(text: str) -> Markup:
    """A board has thousands of texts, most of them names and numbers that come again and again."""
    return Markup(words.html_text(text))


def markup(template: str, /, **parts: Markup | float) -> Markup:
    """``template`` filled with ``parts``, as ``str.format`` does it.

    Args:
        template: a literal; a test finds any that is not.
        parts: markup and numbers, by the names that the template has for them.
    """
    return Markup(template.format(**parts))


def joined(parts: Iterable[Markup], separator: Markup = NOTHING) -> Markup:
    """All parts, one after another."""
    return Markup(separator.join(parts))
