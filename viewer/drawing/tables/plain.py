"""A plain table: names on the left, values to the right of them. Every text given to it is raw, and escaped here."""

from __future__ import annotations

from collections.abc import Sequence

from specscope.viewer.drawing.frames import row, table
from specscope.viewer.drawing.markup import Markup, html_text


def plain_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Markup:
    """A table of which every column but the first holds numbers.

    Args:
        head: names of the columns.
        lines: the cells of each row, as many as there are names.
    """
    classes = ["", *["num"] * (len(head) - 1)]
    rows = (row([html_text(text) for text in line], classes) for line in lines)
    return table(head, rows, numbers=head[1:], kind="ss-plain")
