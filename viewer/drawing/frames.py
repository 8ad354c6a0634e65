"""Frames for markup: boxes, folds and tables. Pure.

Titles and names of columns are raw and escaped here; everything else given to it is markup already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

#: Before what differs, or is violated.
DIFFERS = markup('<b class="ss-differs">≠</b>')
VIOLATED = markup('<b class="ss-differs">✗</b>')


def box(*parts: Markup, kind: str = "") -> Markup:
    """Markup on paper; ``kind`` is a further class."""
    return markup('<section class="ss-box{kind}">{parts}</section>', kind=_also(kind), parts=joined(parts))


def scrolled(drawing: Markup) -> Markup:
    """A drawing that scrolls where there is too little room for legible letters."""
    return markup('<div class="ss-scroll">{drawing}</div>', drawing=drawing)


def folded(title: str, *parts: Markup, aside: str = "", is_open: bool = False, kind: str = "") -> Markup:
    """Markup below a summary that opens it: the title, and beside it a quiet remark."""
    return markup(
        '<details class="ss-more{kind}"{state}><summary>{title}{remark}</summary>{parts}</details>',
        kind=_also(kind),
        state=markup(' open="open"') if is_open else NOTHING,
        title=html_text(title),
        remark=markup(" <span>{aside}</span>", aside=html_text(aside)) if aside else NOTHING,
        parts=joined(parts),
    )


def table(
    names: Sequence[str], lines: Iterable[Markup], *, numbers: Collection[str] = (), kind: str = "", label: str = ""
) -> Markup:
    """A table.

    Args:
        names: of the columns.
        lines: the rows, each a ``<tr>`` such as ``row`` gives.
        numbers: the columns that hold numbers.
        kind: a further class.
        label: by which a table that may scroll, and has nothing that takes the focus, is reached by keyboard.
    """
    head = _cells("th", [html_text(name) for name in names], classes_of(names, numbers))
    return table_of(head, lines, kind=kind, label=label)


def table_of(head: Markup, lines: Iterable[Markup], *, kind: str = "", label: str = "") -> Markup:
    """A table whose cells of the head are markup, each a ``<th>``; ``label`` as for ``table``."""
    reached = (attribute("tabindex", "0"), attribute("role", "group"), attribute("aria-label", label))
    return markup(
        '<div class="ss-table{kind}"{reached}>'
        "<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>",
        kind=_also(kind),
        reached=joined(reached) if label else NOTHING,
        head=head,
        lines=joined(lines),
    )


def row(cells: Sequence[Markup], classes: Sequence[str] = (), attributes: Markup = NOTHING) -> Markup:
    """A row of a table.

    Args:
        cells: the content of each cell.
        classes: the class of each cell, empty for none; leave it out where no cell has one.
        attributes: of the row, as ``attribute`` gives them.
    """
    content = _cells("td", cells, classes or [""] * len(cells))
    return markup("<tr{attributes}>{content}</tr>", attributes=attributes, content=content)


def attribute(name: str, value: str) -> Markup:
    """An attribute of an element, with a space before it; the value is raw."""
    return markup(' {name}="{value}"', name=html_text(name), value=html_text(value))


def step_link(step: int, words: str) -> Markup:
    """The attributes that make a part of a page's drawing a link to ``step``, by keyboard and for those who cannot see
    it as well; the drawing must not be an image, for what is within one cannot be reached."""
    given = {"data-do": f"step:{step}", "role": "link", "tabindex": "0", "aria-label": words}
    return joined(attribute(name, value) for name, value in given.items())


@lru_cache(maxsize=1 << 10)
def kind_attribute(kind: str) -> Markup:
    """The attribute ``class``; nothing where ``kind`` is empty."""
    return attribute("class", kind) if kind else NOTHING


def classes_of(names: Sequence[str], numbers: Collection[str]) -> list[str]:
    """The class of each column's cells."""
    return ["num" if name in numbers else "" for name in names]


def _cells(tag: str, cells: Sequence[Markup], classes: Sequence[str]) -> Markup:
    closing = _closing(tag)
    return joined(
        part for cell, kind in zip(cells, classes, strict=True) for part in (_opening(tag, kind), cell, closing)
    )


@lru_cache(maxsize=256)
def _opening(tag: str, kind: str) -> Markup:
    """A table has thousands of cells of few kinds."""
    return markup("<{tag}{kind}>", tag=html_text(tag), kind=kind_attribute(kind))


@lru_cache(maxsize=8)
def _closing(tag: str) -> Markup:
    return markup("</{tag}>", tag=html_text(tag))


def _also(kind: str) -> Markup:
    return markup(" {kind}", kind=html_text(kind)) if kind else NOTHING
