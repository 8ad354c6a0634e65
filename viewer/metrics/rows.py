"""The numbers of a chart as rows: for its table, for a file, and to tell where a point leads. Pure."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.fragments import quiet
from specscope.viewer.drawing.frames import attribute, folded, row, table
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

#: Rows of a table; a file has them all.
MOST_LISTED = 200


class ChartRow(NamedTuple):
    """A point or a bar."""

    curve: int  # of the figure's
    at: int  # in its curve
    run: str | None  # that the curve is of, as pages call it
    name: str  # of the curve
    x: Any
    y: Any
    low: float | None  # ends of an interval, where one is drawn
    high: float | None

    @property
    def values(self) -> list[str]:
        """All cells, numbers with all their digits."""
        return [self.name, *("" if value is None else str(value) for value in self[4:])]


#: The link that a row leads to; None where it leads nowhere.
Link = Callable[[ChartRow], str | None]


def chart_rows(figure: go.Figure) -> list[ChartRow]:
    """Every point and bar of the figure, curve by curve."""
    return [row_ for curve, trace in enumerate(figure.data) for row_ in _rows_of(curve, trace)]


def _rows_of(curve: int, trace: Any) -> list[ChartRow]:
    lies = getattr(trace, "orientation", None) == "h"
    x, y = (trace.y, trace.x) if lies else (trace.x, trace.y)
    errors = trace.error_x if lies else trace.error_y
    above, below = _listed(errors.array), _listed(errors.arrayminus)
    rows = []
    name = html.unescape(trace.name or "")
    for at, (place, value) in enumerate(zip(_listed(x), _listed(y), strict=True)):
        high = value + above[at] if at < len(above) else None
        low = value - below[at] if at < len(below) else None
        rows.append(
            ChartRow(
                curve=curve,
                at=at,
                run=None if trace.meta is None else html.unescape(trace.meta),
                name=name,
                x=place,
                y=value,
                low=low,
                high=high,
            )
        )
    return rows


def _listed(values: Any) -> list[Any]:
    """Plain values of a column that may be an array, or missing."""
    return [] if values is None else [getattr(value, "item", lambda value=value: value)() for value in values]


def heads_of(figure: go.Figure) -> list[str]:
    """The names of the columns: the curve's, both axes', and the ends of the interval."""
    across, up = figure.layout.xaxis.title.text, figure.layout.yaxis.title.text
    lies = any(getattr(trace, "orientation", None) == "h" for trace in figure.data)
    first, second = (up, across) if lies else (across, up)
    return ["curve", first or "name", second or "value", "from", "to"]


def csv_of(figure: go.Figure) -> str:
    """The numbers as a file. A name that begins like a formula is text to a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(heads_of(figure))
    writer.writerows([_cell(value) for value in line.values] for line in chart_rows(figure))
    return file.getvalue()


def _cell(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
    return text


def numbers_table(figure: go.Figure, title: str, link: Link) -> Markup:
    """The numbers below a chart, with links to the steps that they are of."""
    rows = chart_rows(figure)
    if not rows:
        return NOTHING
    heads, links = heads_of(figure), [link(line) for line in rows[:MOST_LISTED]]
    shown = [any(line.values[at] for line in rows) for at in range(len(heads))]
    names = [name for name, is_shown in zip(heads, shown, strict=True) if is_shown]
    lines = [_line(line, shown, to) for line, to in zip(rows, links, strict=False)]
    rest = quiet(f"and {len(rows) - MOST_LISTED:,} more, which the CSV has") if len(rows) > MOST_LISTED else NOTHING
    aside = "a click on one leads to its steps" if any(links) else ""
    return folded("Numbers", table(names, lines, numbers=names[1:], label=f"Numbers of {title}"), rest, aside=aside)


def _line(line: ChartRow, shown: Sequence[bool], link: str | None) -> Markup:
    values = [html_text(_short(value)) for value in (line.name, *line[4:])]
    if link is not None:
        words = f"steps at {_short(line.x)} of {line.name}"
        target = joined([attribute("href", link), attribute("target", "_self"), attribute("aria-label", words)])
        values[1] = markup("<a{target}>{words}</a>", target=target, words=values[1])
    cells = [value for value, is_shown in zip(values, shown, strict=True) if is_shown]
    return row(cells, ["", *["num"] * (len(cells) - 1)])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else shorten(str(value), 60)
