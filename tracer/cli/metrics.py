"""``specscope metrics``: how well the trees of one or more runs fit their teacher, in numbers."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from specscope.tracer.cli.console import console, echo_document
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.tuning.intervals import Mean
from specscope.tracer.tuning.requests import Served
from specscope.tracer.tuning.summary import RunNumbers, json_of, read_numbers


@click.command(short_help="Accepted lengths, ranks, calibration, times")
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def metrics(traces: tuple[Path, ...], as_json: bool) -> None:
    """Print the numbers of each trace that tuning a drafter or a tree needs.

    Accepted length excludes root and bonus token; tokens per step is one more. Intervals hold 95 % of the means that
    resampling the turns gives. What other trees would have accepted: specscope whatif.
    """
    runs = {}
    for path in traces:
        with TraceReader(path) as reader:
            runs[str(path)] = read_numbers(reader)
    if as_json:
        echo_document(json.dumps({"runs": [{"trace": name, **json_of(run)} for name, run in runs.items()]}, indent=1))
        return
    out = console()
    for name, run in runs.items():
        out.print(escape(printable(name)), style="bold", highlight=False, soft_wrap=True)
        _print_run(out, run)


def _print_run(out: Console, run: RunNumbers) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines_of(run):
        table.add_row(name, escape(value))
    out.print(table)


def lines_of(run: RunNumbers) -> list[tuple[str, str]]:
    """The numbers as rows of a name and a value."""
    walks = run.walks
    read = "" if run.num_read == run.num_steps else f"; numbers from {run.num_read:,}"
    lines = [("steps", f"{run.num_steps:,} of {counted(run.num_turns, 'turn')}{read}")]
    if run.accepted_length is not None:
        mean = run.accepted_length
        lines.append(("accepted length", mean_text(mean)))
        lines.append(("tokens per step", mean_text(Mean(mean.value + 1, mean.low + 1, mean.high + 1, mean.size))))
    if walks.num_steps:
        shares = (f"{length}: {walks.lengths[length] / walks.num_steps:.1%}" for length in sorted(walks.lengths))
        lines.append(("by accepted length", "  ".join(shares)))
    by_depth = walks.by_depth
    pairs = [(depth, by_depth[depth - 1], by_depth[depth]) for depth in range(1, len(by_depth))]
    if pairs:
        lines.append(
            ("accepted by depth", "  ".join(f"{depth}: {there / by_depth[0]:.1%}" for depth, _, there in pairs))
        )
        shares = (f"{depth}: {there / reached:.1%}" for depth, reached, there in pairs if reached)
        lines.append(("given the parent", "  ".join(shares)))
    lines += _right_child(run)
    if walks.bins:
        shares = (f"p {at.mean_probability:.2f}: {at.accepted / at.num_children:.0%}" for at in walks.bins)
        lines.append(("draft p, accepted", "  ".join(shares)))
    if walks.num_drafted:
        lines.append(("nodes accepted", f"{walks.num_accepted:,} of {walks.num_drafted:,} drafted"))
    lines += [("phases", "  ".join(f"{at.name} {at.median_ms:.2f} ms ({at.share:.0%})" for at in run.phases))]
    if run.tokens_per_second is not None:
        lines.append(("tokens per second", f"{run.tokens_per_second:.1f}"))
    lines += _requests(run.served)
    lines += [("repeats itself", f"{run.loops}; almost any drafter foresees a loop")] if run.loops else []
    return [line for line in lines if line[1]]


def _requests(served: Served | None) -> list[tuple[str, str]]:
    """How long requests waited for a row, and what the rows put out together."""
    if served is None:
        return []
    cancelled = f", {served.num_cancelled:,} of them cancelled" if served.num_cancelled else ""
    lines = [("requests", f"{served.num_requests:,} took a row{cancelled}")]
    units = (("steps", served.waited_steps), ("ms", served.waited_ms))
    known = [(unit, waits) for unit, waits in units if waits is not None]
    lines += [
        (f"waited, in {unit}", f"mean {waits.mean:.2f}  p50 {waits.p50:.1f}  p95 {waits.p95:.1f}")
        for unit, waits in known
    ]
    if served.tokens_per_step is not None:
        lines.append(("tokens of all rows", f"{served.tokens_per_step:.2f} a step that they take together"))
    return lines


def _right_child(run: RunNumbers) -> list[tuple[str, str]]:
    walks = run.walks
    total = sum(walks.ranks.values()) + walks.not_in_tree
    if not total:
        return []
    ranks = "  ".join(f"rank {rank}: {walks.ranks[rank] / total:.1%}" for rank in sorted(walks.ranks))
    missed = f"not in the tree: {walks.not_in_tree / total:.1%}"
    if walks.not_in_tree and walks.cut is not None:
        missed += f", of which {walks.cut / walks.not_in_tree:.0%} were proposed and cut"
    return [("right child", f"{ranks}  {missed}")]


def mean_text(mean: Mean) -> str:
    """A mean with its interval."""
    return f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"
