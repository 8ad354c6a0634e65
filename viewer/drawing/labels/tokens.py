"""A token's text as the label of a drawing: short, and legible in any monospace font. Pure."""

from __future__ import annotations

from specscope.tracer.naming.text import legible, shorten

LABEL_LIMIT = 14


def label_text(shown: str, limit: int = LABEL_LIMIT) -> str:
    r"""``shown``, a token's visible text, as a label of at most ``limit`` characters: ``\n\n``, ``·×7``."""
    return shorten(legible(shown), limit)
