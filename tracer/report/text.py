"""The report for a terminal, or as plain text: the card, then what surrounds it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from specscope.tracer.naming.text import printable
from specscope.tracer.report.card import Card, Row, card_of
from specscope.tracer.report.fitted import BOUNDLESS, PLAIN_WIDTH, is_page, print_command, print_line
from specscope.tracer.report.report import Report

STYLES = {"good": "green", "bad": "red", "unsure": "yellow"}
CARD_WIDTH = 110
NAME_WIDTH = 16  # columns of what a note is about


def render(report: Report) -> str:
    """Plain text, without colours."""
    page = io.StringIO()
    print_verdict(Console(file=page, width=PLAIN_WIDTH, no_color=True, emoji=False, force_terminal=False), report)
    return page.getvalue()


def render_error(error: str) -> str:
    """Why there is no verdict."""
    return f"error: {printable(error)}\n"


def print_verdict(out: Console, report: Report) -> None:
    """The report on ``out``, in colours where it has them."""
    card = card_of(report)
    style = STYLES[card.tone]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in card.rows:
        grid.add_row(row.name, escape(row.value))
    width = min(out.width, CARD_WIDTH)
    title = f"[bold {style}]{escape(card.title)}[/]"
    body: RenderableType = grid
    if cell_len(card.title) > width - 6:  # a border cannot wrap
        body = Group(title, grid)
        title = f"[bold {style}]{escape(card.title.partition(':')[0])}[/]"
    out.print(Panel(body, title=title, title_align="left", border_style=style, width=width))
    for number, command in enumerate(card.commands):  # without a border, so that a long one can be copied
        print_command(out, command, before=f"{'next' if number == 0 else '':<6}")
    _print_notes(out, card.notes)
    if card.roots:
        _print_roots(out, card)


def _print_notes(out: Console, notes: Sequence[Row]) -> None:
    """What surrounds the card: below one another where there is room, else each value wrapped within its column."""
    if is_page(out):
        for row in notes:
            out.print(f"  {row.name:<{NAME_WIDTH}} {escape(row.value)}", highlight=False, soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(min_width=NAME_WIDTH + 2, no_wrap=True)
    grid.add_column(overflow="fold")
    for row in notes:
        grid.add_row(f"  {row.name}", escape(row.value))
    out.print(grid, highlight=False)


def _print_roots(out: Console, card: Card) -> None:
    table = _roots_table(card)
    if out.measure(table, options=out.options.update(width=BOUNDLESS)).maximum <= out.width:
        out.print(table)
    else:
        for root in card.roots:
            difference = f"{root.phase}: {root.field}, {root.kind}, {root.inherited} inherited"
            line = f"root {root.number}  at {root.at}  prompt {root.prompt}  {difference}"
            print_line(out, escape(line), indent=2, hanging=2)
    if card.num_roots > len(card.roots):
        out.print(f"  and {card.num_roots - len(card.roots)} more; the json report lists them", highlight=False)


def _roots_table(card: Card) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("  root", "at", "prompt", "phase", "field", "kind", "inherited"):
        table.add_column(name, no_wrap=True)  # a line that begins with a trace's words could be a CI's command
    for root in card.roots:
        cells = (root.at, root.prompt, root.phase, root.field, root.kind, str(root.inherited))
        table.add_row(f"  {root.number}", *map(escape, cells))
    return table
