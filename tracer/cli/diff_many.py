"""``specscope diff-many``: a table of pairs, compared side by side, resumable."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import click

from specscope.schemas.pair_result import PairResult
from specscope.tracer.cli.console import echo_words, keeping, progress
from specscope.tracer.cli.options import fail_on_option, tolerance_option
from specscope.tracer.errors import UsageError
from specscope.tracer.fleet.compare_pair import Task
from specscope.tracer.fleet.results import Results, open_results
from specscope.tracer.fleet.summary import summarise, text_of
from specscope.tracer.fleet.table import parse_shard, read_pairs
from specscope.tracer.fleet.workers import judge_all
from specscope.tracer.naming.text import printable


@click.command("diff-many", short_help="Compare every pair in a table; resumes")
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="One JSON line per pair; an existing file is resumed.",
)
@click.option("--jobs", type=click.IntRange(1, 512), help="Worker processes.  [default: one per processor]")
@click.option("--shard", default="1/1", metavar="i/N", help="Compare the i-th of N parts of the table.")
@tolerance_option
@fail_on_option
def diff_many(pairs: Path, out: Path, jobs: int | None, shard: str, tolerance: float | None, fail_on: str) -> None:
    """Compare every pair of the table PAIRS, a CSV file with the header baseline,candidate[,name][,allow][,noise].

    Paths are relative to the table's folder; allow holds manifest fields with spaces between them. A pair whose
    result stands in the results file, from the same files and settings, is not compared again; errors are. Interrupted,
    it keeps what it has.

    Exits with the worst code of all pairs: 1, then 2 (no verdict), 4, 3.
    """
    part = parse_shard(shard)
    listed = read_pairs(pairs)
    if os.path.realpath(out) == os.path.realpath(pairs):  # resolve() raises at a loop of links
        raise UsageError(f"cannot write {out}: it is the table of pairs")
    tasks = [Task(pair, tolerance, fail_on == "near-tie") for pair in part.of(listed)]
    if not tasks:
        echo_words(f"no pair in this shard: {shard} of a table of {len(listed)}", err=True)
    kept = f"{out} keeps the results so far; the same command resumes them"
    with open_results(out) as results, keeping(kept):
        known = _known(results, tasks)
        if known:
            echo_words(f"{len(known)} of {len(tasks)} pairs are known from {printable(str(out))}", err=True)
        todo = [task for task in tasks if task.pair.name not in known]
        known |= _judge(todo, jobs or os.cpu_count() or 1, results)
    summary = summarise(known[task.pair.name] for task in tasks)
    echo_words(text_of(summary))
    sys.exit(summary.exit_code)


def _known(results: Results, tasks: list[Task]) -> dict[str, PairResult]:
    """The results that still hold, by name. An error may have been the machine's, and is tried again."""
    known = {}
    for task in tasks:
        result = results.known.get(task.pair.name)
        if result is not None and result.verdict != "error" and result.stamp == task.stamp:
            known[task.pair.name] = result
    return known


def _judge(tasks: list[Task], num_workers: int, results: Results) -> dict[str, PairResult]:
    judged: dict[str, PairResult] = {}
    failing = 0
    judging = judge_all(tasks, num_workers)
    with closing(judging), progress("comparing", len(tasks), "pairs", shown=bool(tasks)) as advance:
        for result in judging:
            results.add(result)
            judged[result.name] = result
            failing += bool(result.exit_code)
            advance(f"{failing} failing")
    return judged
