"""Lines and tables that fit their console: whole in a pipe, on a terminal broken between words alone.

A word that is longer than the terminal is wide, such as a path, is left whole: the terminal wraps it, and gives it back
whole when it is copied.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

PLAIN_WIDTH = 200  # columns of a page that is no terminal
BOUNDLESS = 10_000  # columns: wider than a table of bounded values can be
WORD = re.compile(r"\S+")
GOES_ON = " \\"
GAPS = (2, 1)  # columns between those of a table, the first that fits


def is_page(out: Console) -> bool:
    """Whether lines of any length may be printed: nobody reads them on a screen."""
    return not out.file.isatty() and out.width >= PLAIN_WIDTH


def print_line(out: Console, markup: str, *, indent: int = 0, hanging: int = 0) -> None:
    """Prints a line behind ``indent`` blanks; the lines that it continues in have ``hanging`` more."""
    line = Text.from_markup(markup, emoji=False)
    if is_page(out):
        out.print(Text(" " * indent) + line, highlight=False, soft_wrap=True)
        return
    for number, part in enumerate(line.divide(_breaks(line.plain, out.width - indent, hanging=hanging))):
        part.rstrip()
        out.print(Text(" " * (indent + hanging * (number > 0))) + part, highlight=False, soft_wrap=True)


def print_command(out: Console, command: str, *, before: str) -> None:
    """Prints a command that is to be copied, behind ``before``. Where it does not fit, it goes on behind a backslash,
    as a shell reads it."""
    fits = is_page(out) or cell_len(before + command) <= out.width
    pieces = [command] if fits else _arguments(command)
    lines = [before + pieces[0]]
    for piece in pieces[1:]:
        if cell_len(f"{lines[-1]} {piece}{GOES_ON}") <= out.width:
            lines[-1] += f" {piece}"
        else:
            lines.append(" " * (len(before) + 4) + piece)
    out.print(Text(f"{GOES_ON}\n".join(lines)), highlight=False, soft_wrap=True)


def _arguments(command: str) -> list[str]:
    """The words of a command as a shell reads them, each as it is quoted there, an option with what follows it; the
    command in one piece where it is more than such words."""
    try:
        words = shlex.split(command)
    except ValueError:
        return [command]
    if shlex.join(words) != command:
        return [command]
    pieces: list[str] = []
    for word in map(shlex.quote, words):
        follows_option = bool(pieces) and pieces[-1].startswith("--") and " " not in pieces[-1]
        if follows_option and not word.startswith("-"):
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    return pieces


def _breaks(text: str, width: int, *, hanging: int) -> list[int]:
    """Where ``text`` goes on in another line, so that none is wider than ``width``, or from the second on than what
    ``hanging`` leaves of it, unless by one word."""
    breaks: list[int] = []
    begin = 0
    for word in WORD.finditer(text):
        if text[begin : word.start()].strip() and cell_len(text[begin : word.end()]) > width:
            width -= hanging if not breaks else 0
            breaks.append(begin := word.start())
    return breaks


def print_table(out: Console, table: Table) -> None:
    """Prints a table without a box: as it is in a pipe or where there is room, else with headers and texts wrapped
    between words, and where that does not help, each row by itself, a line for each of its cells."""
    widest = out.measure(table, options=out.options.update(width=BOUNDLESS)).maximum
    if widest <= out.width:
        out.print(table)
        return
    if is_page(out):
        Console(file=out.file, width=widest, color_system=None).print(table)
        return
    ranges = [_range(out, column) for column in table.columns]
    for gap in GAPS:
        room = out.width - gap * (len(ranges) - 1)
        if sum(needed.minimum for needed in ranges) <= room:
            table.padding, table.pad_edge = (0, gap, 0, 0), False
            for column, width in zip(table.columns, _shared(ranges, room), strict=True):
                column.width, column.no_wrap = width, False
            out.print(table)
            return
    _print_rows(out, table)


def _range(out: Console, column: Column) -> Measurement:
    """How wide a column must be so that no word is cut, nor a cell that must not be wrapped; and how wide it can be."""
    boundless = out.options.update(width=BOUNDLESS)
    header = Measurement.get(out, boundless, column.header)
    cells = [Measurement.get(out, boundless, cell) for cell in column.cells]
    least = [cell.maximum if column.no_wrap else cell.minimum for cell in cells]
    return Measurement(max([header.minimum, *least]), max([header.maximum, *(cell.maximum for cell in cells)]))


def _shared(ranges: Sequence[Measurement], room: int) -> list[int]:
    """The widths of columns that have ``room`` together: those that need little get it, the others share the rest."""
    widths = [needed.minimum for needed in ranges]
    while True:
        left = room - sum(widths)
        wanting = [number for number, needed in enumerate(ranges) if widths[number] < needed.maximum]
        if not wanting or left <= 0:
            return widths
        share = max(1, left // len(wanting))
        for number in wanting[:left]:
            widths[number] += min(share, ranges[number].maximum - widths[number])


class _Cell(NamedTuple):
    """A cell and the name of its column, as markup."""

    name: str
    value: str


def _print_rows(out: Console, table: Table) -> None:
    names = [str(column.header).strip() for column in table.columns]
    if not table.rows:
        print_line(out, f"no rows; columns: {', '.join(names)}")
        return
    longest = max(Text.from_markup(name).cell_len for name in names)
    for number, values in enumerate(zip(*(column.cells for column in table.columns), strict=True)):
        if number:
            out.print()
        for cell in map(_Cell, names, map(str, values)):
            blanks = " " * (longest - Text.from_markup(cell.name).cell_len)
            print_line(out, f"[dim]{cell.name}[/]{blanks}  {cell.value}", hanging=longest + 2)
