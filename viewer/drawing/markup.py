"""Markup as its own type, so that the type checker finds every place where raw text would enter it.

``html_text`` is the only way from raw text to markup. ``markup`` fills a template, which must be a literal, with
markup and numbers, and ``joined`` puts markup together; whatever else is done to markup gives a plain ``str``, which
none of the drawings accepts.

``Markup`` is a ``NewType`` and not a class that escapes by itself: it costs nothing at run time, is JSON as it stands,
and a mistake is reported when the code is checked, before any trace is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NewType

from specscope.tracer.naming import text as words

Markup = NewType("Markup", str)

NOTHING = Markup("")


def html_text(text: str) -> Markup:
    """Raw text for element content and quoted attributes, with every hidden character made visible."""
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
