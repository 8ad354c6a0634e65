"""What ``specscope bench`` prints: the report's tables and remarks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table as RichTable
from rich.text import Text

from specscope.engine.lab.bench.report import BenchReport
from specscope.engine.lab.bench.tables import Table, tables
from specscope.tracer.cli.console import console
from specscope.tracer.naming.text import printable
from specscope.tracer.report.fitted import print_table


def print_report(report: BenchReport) -> None:
    """Prints it, within 80 columns where the names are short."""
    print_tables(tables(report), report.remarks)


def print_tables(tables: Sequence[Table], remarks: Sequence[str]) -> None:
    """Prints tables, and what they rest on."""
    out = console()
    for table in tables:
        out.print(Text(table.title, style="bold"))
        print_table(out, _drawn(table))
        out.print()
    for remark in remarks:
        style = "bold" if remark.startswith("PARTIAL") else ""
        out.print(Text(printable(remark), style=style), highlight=False)


def _drawn(table: Table) -> RichTable:
    drawn = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, column in enumerate(table.columns):
        drawn.add_column(Text(column), justify="right" if number else "left", no_wrap=not number)
    for row in table.rows:
        drawn.add_row(*[Text(printable(cell)) for cell in row])
    return drawn
