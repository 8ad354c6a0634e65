"""``specscope whatif``: what another budget, depth or top-k would have accepted, from one trace, without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.table import Table

from specscope.schemas import Manifest
from specscope.tracer.cli.console import console, echo_document
from specscope.tracer.errors import EXIT_COVERAGE, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.tuning.summary import RunNumbers, read_numbers, what_if_json
from specscope.tracer.tuning.whatif import TreeSetting, why_not

NOTE = (
    "Exact at every recorded step where all candidates that the setting needs were recorded. A run with that setting"
    " would have stood at other steps, so that its mean may differ by some percent."
)


@click.command(short_help="What another budget or depth would accept")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--budget", "budgets", multiple=True, type=click.IntRange(1), help="Try this budget; may be given again.")
@click.option("--depth", "depths", multiple=True, type=click.IntRange(1), help="Try this depth; may be given again.")
@click.option("--top-k", "top_ks", multiple=True, type=click.IntRange(1), help="Try this top-k; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def whatif(
    trace: Path, budgets: tuple[int, ...], depths: tuple[int, ...], top_ks: tuple[int, ...], as_json: bool
) -> None:
    """Print what other trees would have accepted in the run of TRACE, from the candidates that it recorded.

    Without options, budgets, smaller depths and smaller top-k are tried, each with the other two as recorded; with
    them, every combination of what is given. Larger depths and top-k than recorded cannot be told.

    Exits 4 where nothing can be told of the trace, and says why.
    """
    with TraceReader(trace) as reader:
        can_be_told = why_not(reader.manifest) is None
        settings = combinations(reader.manifest, budgets, depths, top_ks) if can_be_told else []
        run = read_numbers(reader, settings or None)
    if as_json:
        echo_document(json.dumps({"trace": str(trace), **what_if_json(run)}, indent=1))
    elif run.what_if:
        _print_outcomes(run)
    if run.no_what_if is not None:
        click.echo(f"error: nothing can be told of this trace: {run.no_what_if}", err=True)
        sys.exit(EXIT_COVERAGE)


def combinations(
    manifest: Manifest, budgets: tuple[int, ...], depths: tuple[int, ...], top_ks: tuple[int, ...]
) -> list[TreeSetting]:
    """Every combination of what is given, the rest as recorded; empty where nothing is given.

    Raises:
        UsageError: where a depth or a top-k is larger than the recorded one.
    """
    if not (budgets or depths or top_ks):
        return []
    policy = manifest.tree_policy
    for name, given, most in (("--depth", depths, policy.depth), ("--top-k", top_ks, policy.top_k)):
        if max(given, default=0) > most:
            raise UsageError(f"got {name} {max(given)}, wanted at most the recorded {most}: no candidates beyond")
    return [
        TreeSetting(budget, depth, top_k)
        for budget in budgets or (policy.budget,)
        for depth in depths or (policy.depth,)
        for top_k in top_ks or (policy.top_k,)
    ]


def _print_outcomes(run: RunNumbers) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("budget", "depth", "top-k", "accepted length", "95 %", "tokens per step", "exact steps", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for number, outcome in enumerate(run.what_if):
        mean = outcome.accepted_length
        table.add_row(
            *(str(value) for value in outcome.setting),
            f"{mean.value:.3f}",
            f"{mean.low:.3f} to {mean.high:.3f}",
            f"{mean.value + 1:.3f}",
            f"{outcome.num_exact} of {mean.size}",
            "as recorded" if number == 0 else "",
        )
    out = console()
    out.print(table)
    out.print(NOTE, highlight=False, style="dim")
