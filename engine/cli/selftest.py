"""``specscope selftest``: does the tool find what it is for?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
import orjson
from rich.markup import escape
from rich.table import Table

from specscope.engine.cli.computing import device_option
from specscope.tracer.cli.console import console, echo_document, echo_words, progress
from specscope.tracer.errors import EXIT_DIFFERENT, UsageError
from specscope.tracer.naming.text import printable
from specscope.tracer.report.fitted import print_line, print_table

if TYPE_CHECKING:
    from specscope.engine.lab.selftest.judge import Judgement
    from specscope.engine.lab.selftest.score import Score
    from specscope.engine.lab.selftest.suite import Plan


@click.command(short_help="Inject every known fault; score the verdicts")
@click.option(
    "--fault",
    "fault_ids",
    multiple=True,
    metavar="ID",
    help="Only this fault, by entry (F15) or id; may be given again. The only controls then are its scenario's modes.",
)
@click.option("--list", "only_list", is_flag=True, help="Print the catalogue of faults, and run nothing.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="FOLDER", help="Leave all traces in this folder.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def selftest(fault_ids: tuple[str, ...], only_list: bool, keep: Path | None, device: str, as_json: bool) -> None:
    """Put every deliberate fault into a live run of the demo models, and see whether diff finds it.

    Of each fault: is it detected, is the first root where it must be, is the right side blamed. The controls are honest
    pairs; whatever is reported on one of them is a false positive. The faults are put in twice, in float32 and
    bfloat16. What cannot be tried here is listed as not run.

    Exits 0 when all came out as expected and every edge was reached, 1 when anything did not. With --fault no edge is
    demanded: only the scenarios of those faults run.
    """
    from specscope.engine.lab.selftest.runs import Runs
    from specscope.engine.lab.selftest.score import score_json
    from specscope.engine.lab.selftest.suite import plan, run_selftest

    what = plan(list(fault_ids), device)
    if only_list:
        _print_catalogue(what, as_json)
        return
    with _folder(keep) as folder, progress("selftest", what.size, "runs", shown=not as_json) as advance:
        score = run_selftest(what, Runs(folder, device), advance)
    if as_json:
        echo_document(orjson.dumps(score_json(score), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _print_score(score)
        if keep is not None:
            echo_words(f"traces: {keep}")
    sys.exit(0 if score.as_expected else EXIT_DIFFERENT)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with TemporaryDirectory(prefix="specscope-selftest-") as folder:
            yield Path(folder)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UsageError(f"{keep} is there already and no empty folder: give another one")
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {keep}: {error.strerror}") from None
    yield keep


def _print_catalogue(what: Plan, as_json: bool) -> None:
    if as_json:
        faults = [{"id": f.id, "says": f.says, "scenario": f.scenario} for f in what.faults]
        echo_document(orjson.dumps(faults, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    table = _table("id", "what", "scenario", "the verdict must say")
    for fault in what.faults:
        expect = fault.expect
        wanted: str = expect.outcome
        if expect.places:
            wanted = "first root at " + " or ".join(f"{phase}: {field}" for phase, field in expect.places)
        table.add_row(fault.id, escape(fault.says), fault.scenario, escape(wanted))
    console().print(table)


def _print_score(score: Score) -> None:
    out = console()
    if score.judgements:
        table = _table("id", "what", "detected", "first root at", "blamed", "verdict")
        for judgement in score.judgements:
            table.add_row(*_row(judgement))
        print_table(out, table)
        out.print()
    table = _table("control", "what", "silent", "verdict")
    for control in score.controls:
        silent = "yes" if control.silent else "[red]NO[/]"
        table.add_row(control.name, escape(control.says), silent, escape(printable(control.verdict)))
    print_table(out, table)
    out.print()
    for entry in score.not_run:
        print_line(out, f"not run  {escape(entry.name)}: {escape(entry.why)}", hanging=2)
    for judgement in score.judgements:
        for line in judgement.wrong:
            print_line(out, f"[red]not as expected[/]  {judgement.name}: {escape(printable(line))}", hanging=2)
    for control in score.controls:
        if not control.silent:
            print_line(out, f"[red]not silent[/]  {control.name}: {escape(printable(control.verdict))}", hanging=2)
    _print_edges(score)
    print_line(out, f"{score.words}; {score.seconds:.0f} s", hanging=2)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _row(judgement: Judgement) -> list[str]:
    fault = judgement.fault
    return [
        judgement.name,
        escape(fault.says),
        _marked("yes" if judgement.detected else "NO", judgement.detected),
        _marked(escape(_short(printable(judgement.first))), judgement.placed),
        _marked(escape(_blame(judgement)), judgement.blamed) if judgement.blamed is not None else "-",
        judgement.verdict,
    ]


def _blame(judgement: Judgement) -> str:
    """The invariant that was expected, or else the first one, and how many more."""
    if not judgement.blame:
        return "nobody"
    wanted = judgement.fault.expect.invariant
    shown = next((blame for blame in judgement.blame if wanted is not None and wanted in blame), judgement.blame[0])
    others = len(judgement.blame) - 1
    return f"{shown} and {others} more" if others else shown


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _marked(text: str, right: bool | None) -> str:
    return f"[red]{text} ✗[/]" if right is False else text


def _print_edges(score: Score) -> None:
    if not score.edges:
        return
    for edge in score.missed_edges:
        console().print(f"[red]missed edge[/]  {escape(edge)}: no honest run has been there", highlight=False)
    line = f"edges    {sum(score.edges.values())} of {len(score.edges)} reached"
    others = "; ".join(f"{edge} ({why})" for edge, why in score.unreached.items())
    print_line(console(), f"{line}; out of reach: {others}", hanging=9)
