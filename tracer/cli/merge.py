"""``specscope merge``: the traces of a run's parts as one trace."""

from __future__ import annotations

from pathlib import Path

import click

from specscope.tracer.cli.console import echo_words
from specscope.tracer.cli.options import out_option
from specscope.tracer.files.merge import merge_traces
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.report.formats import Target, check_targets


@click.command(short_help="Put the traces of a run's shards together")
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@out_option
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def merge(parts: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Write the traces PARTS, such as those of specscope run --shard 1/2 and 2/2, as one trace.

    All parts must have the same settings, and each prompt must be in one part. Turns are numbered anew. A part that did
    not end as complete makes the whole end as failed.
    """
    check_targets([Target("json", out)], list(parts))
    merged = merge_traces(parts, out, overwrite=overwrite)
    echo_words(printable(f"wrote {out}: {counted(merged.num_turns, 'turn')} of {counted(len(parts), 'part')}"))
    for part in merged.cut_short:
        echo_words(printable(f"{part} was cut short: {out} ends as failed"), err=True)
