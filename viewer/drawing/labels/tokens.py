"""A token's text as the label of a drawing: short, and legible in any monospace font. Pure."""

from __future__ import annotations

import re

from specscope.tracer.naming.text import shorten

LABEL_LIMIT = 14
#: More spaces than can be counted at a glance.
_SPACES = re.compile("·{4,}")
#: A backslash that would read as the escape of a newline, a tab or a return, though it is the token's own.
_ESCAPE_LIKE = re.compile(r"\\(?=[ntr])")
#: Few fonts have these signs as wide and as clear as letters are.
_AS_ESCAPES = {"⏎": r"\n", "⇥": r"\t", "␍": r"\r"}


def label_text(shown: str, limit: int = LABEL_LIMIT) -> str:
    r"""``shown``, a token's visible text, as a label of at most ``limit`` characters: ``\n\n``, ``·×7``."""
    text = _ESCAPE_LIKE.sub(r"\\\\", shown)
    for sign, escape in _AS_ESCAPES.items():
        text = text.replace(sign, escape)
    return shorten(_SPACES.sub(lambda spaces: f"·×{len(spaces[0])}", text), limit)
