"""``specscope summary``: what the results of ``diff-many`` came to, over one or more files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from specscope.schemas.pair_result import PairResult
from specscope.tracer.cli.console import echo_document, echo_words
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_EQUAL, worst_code
from specscope.tracer.fleet.results import read_results, torn_bytes
from specscope.tracer.fleet.summary import json_of, markdown_of, summarise, text_of
from specscope.tracer.fleet.table import read_pairs
from specscope.tracer.naming.text import counted, printable

FORMATS = {"text": text_of, "json": json_of, "markdown": markdown_of}


@click.command(short_help="Sum up the results of diff-many")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="The table that was compared: exits 4 where a pair of it has no result, as when a shard is missing.",
)
def summary(results: tuple[Path, ...], form: str, pairs: Path | None) -> None:
    """Sum up the RESULTS files of diff-many, such as those of several shards. A pair in two files counts once: the
    result of the later file stands.

    Exits with the worst code of all pairs: 1, then 2 (no verdict), 4, 3. A file without a result counts as 4, unless
    --pairs says which results there should be.
    """
    by_name: dict[str, PairResult] = {}
    code = EXIT_EQUAL
    for path in results:
        of_file = read_results(path)
        _say_what_is_left_out(path, of_file)
        if not of_file and pairs is None:
            code = EXIT_COVERAGE
        by_name |= of_file
    total = summarise(by_name.values())
    page = FORMATS[form](total)
    if form == "text":
        echo_words(page)
    else:
        echo_document(page)
    code = worst_code((code, total.exit_code))
    missing = [] if pairs is None else [p.name for p in read_pairs(pairs) if p.name not in by_name]
    if missing:
        names = printable(", ".join(missing[:5])) + (", ..." if len(missing) > 5 else "")
        echo_words(f"missing: {counted(len(missing), 'pair')} of the table without a result: {names}", err=True)
        code = worst_code((code, EXIT_COVERAGE))
    sys.exit(code)


def _say_what_is_left_out(path: Path, results: dict[str, PairResult]) -> None:
    torn = torn_bytes(path)
    if torn:
        echo_words(f"{printable(str(path))}: the last {torn} bytes are a torn line and were left out", err=True)
    if not results:
        echo_words(f"{printable(str(path))}: holds no result", err=True)
