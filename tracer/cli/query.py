"""``specscope query``: SQL over traces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from specscope.tracer.cli.console import console, echo_document, echo_words
from specscope.tracer.cli.streams import output_is_read
from specscope.tracer.errors import UsageError
from specscope.tracer.export.database import BATCH_ROWS, Answer, ask
from specscope.tracer.export.tables import columns_text, cut_note
from specscope.tracer.export.values import csv_line, json_value, value_text
from specscope.tracer.naming.text import printable
from specscope.tracer.report.fitted import print_table

MAX_TABLE_ROWS = 1000


@click.command(short_help="SQL over the turns, steps, nodes and ranks of traces")
@click.argument("sql", required=False)
@click.argument("traces", nargs=-1, type=click.Path(path_type=Path))
@click.option("--columns", is_flag=True, help="Print the tables and their columns, and nothing else.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def query(sql: str | None, traces: tuple[Path, ...], columns: bool, form: str) -> None:
    """Answer SQL, one SELECT, over the tables turns, steps, nodes and ranks of TRACES.

    \b
    specscope query "SELECT trace, avg(nodes) FROM steps GROUP BY trace" *.jsonl

    The SQL is DuckDB's. It can read these tables, and no file, network or extension.
    """
    if columns:
        echo_words(columns_text())
        return
    if sql is None or not traces:
        raise UsageError('wanted SQL and traces: specscope query "SELECT ..." TRACE...; --columns lists the tables')
    with ask(sql, traces) as answer:
        for note in filter(None, map(cut_note, traces)):
            echo_words(printable(note), err=True)
        try:
            PRINTERS[form](answer)
        except MemoryError:
            raise UsageError("a row of the answer does not fit into memory: select less") from None


def _print_table(answer: Answer) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in answer.columns:
        table.add_column(escape(printable(name)), overflow="fold")
    for row in islice(answer.rows, MAX_TABLE_ROWS):
        table.add_row(*(escape(printable(_shown(value))) for value in row))
    print_table(console(), table)
    if next(answer.rows, None) is not None:
        echo_words(f"the first {MAX_TABLE_ROWS:,} rows; there are more, which --format csv or json prints")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else value_text(value)


def _print_csv(answer: Answer) -> None:
    _echo(map(csv_line, chain([answer.columns], answer.rows)))


def _print_json(answer: Answer) -> None:
    _echo(chain(["["], _json_entries(answer), ["\n]\n"]))


def _json_entries(answer: Answer) -> Iterator[str]:
    for number, row in enumerate(answer.rows):
        entry = dict(zip(answer.columns, map(json_value, row), strict=True))
        yield (",\n" if number else "\n") + json.dumps(entry, allow_nan=False)


def _echo(parts: Iterator[str]) -> None:
    """Prints a document as it is made, however long it is, for as long as somebody reads it."""
    while output_is_read() and (chunk := list(islice(parts, BATCH_ROWS))):
        echo_document("".join(chunk))


PRINTERS: dict[str, Callable[[Answer], None]] = {"table": _print_table, "csv": _print_csv, "json": _print_json}
