"""What markup stands in: boxes, folds and tables. Pure.

Titles and names of columns are raw and escaped here; everything else given to it is markup already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from specscope.tracer.words.text import html_text

#: Before what differs, or is violated.
DIFFERS = '<b class="ss-differs">≠</b>'
VIOLATED = '<b class="ss-differs">✗</b>'


def box(*parts: str, kind: str = "") -> str:
    """Markup on paper; ``kind`` is a further class."""
    return f'<section class="ss-box{_also(kind)}">{"".join(parts)}</section>'


def folded(title: str, *parts: str, aside: str = "", is_open: bool = False, kind: str = "") -> str:
    """Markup behind a summary: the title, and beside it a quiet remark."""
    state = ' open="open"' if is_open else ""
    remark = f" <span>{html_text(aside)}</span>" if aside else ""
    summary = f"<summary>{html_text(title)}{remark}</summary>"
    return f'<details class="ss-more{_also(kind)}"{state}>{summary}{"".join(parts)}</details>'


def table(names: Sequence[str], lines: Iterable[str], *, numbers: Collection[str] = (), kind: str = "") -> str:
    """A table.

    Args:
        names: of the columns.
        lines: a ``<tr>`` each, such as ``row`` makes.
        numbers: the columns that hold numbers.
        kind: a further class.
    """
    head = _cells("th", [html_text(name) for name in names], classes_of(names, numbers))
    return (
        f'<div class="ss-table{_also(kind)}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def row(cells: Sequence[str], classes: Sequence[str] = (), attributes: str = "") -> str:
    """A row of a table.

    Args:
        cells: markup of each.
        classes: one a cell, empty for none; or none at all.
        attributes: of the row, with a space before each.
    """
    return f"<tr{attributes}>{_cells('td', cells, classes or [''] * len(cells))}</tr>"


def classes_of(names: Sequence[str], numbers: Collection[str]) -> list[str]:
    """The class of each column's cells."""
    return ["num" if name in numbers else "" for name in names]


def _cells(tag: str, cells: Sequence[str], classes: Sequence[str]) -> str:
    kinds = (f' class="{name}"' if name else "" for name in classes)
    return "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))


def _also(kind: str) -> str:
    return f" {kind}" if kind else ""
