"""A plain table: names on the left, values to the right of them. Every text given to it is raw, and escaped here."""

from __future__ import annotations

from collections.abc import Sequence

from specscope.tracer.text import html_text


def plain_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of which every column but the first holds numbers.

    Args:
        head: names of the columns.
        lines: of each row the cells, as many as there are names.
    """
    names = _cells("th", head)
    body = "".join(f"<tr>{_cells('td', line)}</tr>" for line in lines)
    return f'<div class="ss-table ss-plain"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(tag: str, texts: Sequence[str]) -> str:
    first, *others = texts
    numbers = "".join(f'<{tag} class="num">{html_text(text)}</{tag}>' for text in others)
    return f"<{tag}>{html_text(first)}</{tag}>{numbers}"
