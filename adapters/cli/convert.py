"""``specscope convert``: what another engine writes about its requests, as a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from specscope.adapters.dumps.formats import READERS, read_dump
from specscope.adapters.dumps.requests import write_lengths
from specscope.tracer.cli.console import echo_words
from specscope.tracer.cli.options import out_option
from specscope.tracer.errors import UsageError
from specscope.tracer.naming.text import counted, printable

NO_IDLE_STEPS = "steps that verified no draft are not reported: how many there were, and between which, is not known"
SHOWN = 5  # requests that are left out, by name


def _stated(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """What ``--set`` gives, by field; a value is JSON, or else text."""
    stated: dict[str, Any] = {}
    for given in values:
        name, separator, value = given.partition("=")
        if not separator or not name.strip():
            raise UsageError(f"got --set {given[:80]}, wanted FIELD=VALUE, such as dtype=bfloat16")
        try:
            stated[name.strip()] = json.loads(value)
        except ValueError:
            stated[name.strip()] = value
    return stated


@click.command(short_help="Make a trace of what another engine dumped")
@click.argument("form", metavar="FORMAT", type=click.Choice(list(READERS)))
@click.argument("dump", type=click.Path(path_type=Path, dir_okay=False))
@out_option
@click.option(
    "--set",
    "stated",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=_stated,
    help="State a field of the manifest that the dump does not, such as sampling.rule=greedy; repeatable.",
)
@click.option("--by-order", is_flag=True, help="Name prompts by their place in DUMP instead of by their request ids.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def convert(form: str, dump: Path, out: Path, stated: dict[str, Any], by_order: bool, overwrite: bool) -> None:
    """Write DUMP, a file of another engine, as a trace of level lengths.

    \b
    vllm          responses with --per-request-spec-decode-metrics detailed
    sglang        /server_info with dspark_info_record, reqs included
    llama-server  its debug log
    aiperf        profile_export.jsonl, of a server that reports every step

    Such a trace records only how many tokens each step drafted and accepted. check judges these counts, metrics sums
    them up, and diff compares accepted lengths where --set sampling.rule=greedy is stated of both runs. Nothing else is
    compared, and diff says so: it never calls such runs equal.
    """
    if out.exists() and dump.exists() and out.samefile(dump):
        raise UsageError(f"{out} is the dump itself: name another file with --out")
    read = read_dump(dump, form)
    written = write_lengths(read, out, stated=stated, by_order=by_order, overwrite=overwrite)
    size = f"{counted(written.num_turns, 'turn')}, {counted(written.num_steps, 'step')}"
    echo_words(printable(f"wrote {out}: {size}, lengths only"))
    if "conventions" in read.manifest:
        echo_words(NO_IDLE_STEPS, err=True)
    _list("left out", read.left_out)
    _list("may lack its first steps, and is not compared", written.lacking)


def _list(what: str, lines: Sequence[str]) -> None:
    """Says what of each, the first few by name."""
    for line in lines[:SHOWN]:
        echo_words(printable(f"{what}: {line}"), err=True)
    if len(lines) > SHOWN:
        echo_words(f"{what}: {len(lines) - SHOWN} more", err=True)
