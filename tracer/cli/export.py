"""``specscope export``: a trace for another tool."""

from __future__ import annotations

import json
from pathlib import Path

import click

from specscope.tracer.cli.console import echo_words
from specscope.tracer.cli.options import out_option
from specscope.tracer.errors import FileTakenError, UsageError
from specscope.tracer.export.aiperf import aiperf_records
from specscope.tracer.export.database import store_parquet
from specscope.tracer.export.perfetto import perfetto_trace
from specscope.tracer.export.tables import TABLES, cut_note
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.report.formats import Target, check_targets, write_whole


@click.command(short_help="Timings for Perfetto, tables as Parquet, records for AIPerf")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["perfetto", "parquet", "aiperf"]), default="perfetto", show_default=True
)
@click.option(
    "--table", type=click.Choice(list(TABLES)), default="steps", show_default=True, help="With parquet: which."
)
@out_option
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def export(trace: Path, form: str, table: str, out: Path, overwrite: bool) -> None:
    """Write TRACE for another tool.

    perfetto: stage timings as a file that ui.perfetto.dev opens. Phases are laid one after another, a track for each
    turn. A trace records how long they took; when a step began is recorded by some writers only; otherwise gaps between
    steps are not shown.

    parquet: the table turns, steps or nodes, with the columns that specscope query --columns lists.

    aiperf: a line for each turn, as AIPerf's profile_export.jsonl has one for each request: what every step drafted and
    accepted, lengths of prompt and output, and how long it took. Turns are laid one after another from when the run
    began, since a trace does not record when each one did.
    """
    check_targets([Target("json", out)], [trace])
    if out.exists() and not overwrite:
        raise FileTakenError(out)
    note = cut_note(trace)
    if note is not None:
        echo_words(printable(note), err=True)
    if form == "parquet":
        num_rows = store_parquet(table, trace, out)
        echo_words(printable(f"wrote {out}: {counted(num_rows, f'row of {table}')}"))
    elif form == "aiperf":
        _write_aiperf(trace, out)
    else:
        _write_perfetto(trace, out)


def _write_aiperf(trace: Path, out: Path) -> None:
    with TraceReader(trace) as reader:
        lines = [json.dumps(record, ensure_ascii=False) for record in aiperf_records(reader)]
    if not lines:
        raise UsageError(f"{trace} has no turn that came to an end")
    write_whole(out, "\n".join(lines) + "\n")
    echo_words(printable(f"wrote {out}: {counted(len(lines), 'record')}"))


def _write_perfetto(trace: Path, out: Path) -> None:
    with TraceReader(trace) as reader:
        page = perfetto_trace(reader)
    num_slices = sum(event["ph"] == "X" for event in page["traceEvents"])
    if not num_slices:
        raise UsageError(f"{trace} records no timings")
    write_whole(out, json.dumps(page))
    echo_words(printable(f"wrote {out}: {counted(num_slices, 'slice')}; open it with https://ui.perfetto.dev"))
