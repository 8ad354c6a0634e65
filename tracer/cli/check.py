"""``specscope check``: the oracle over one or more traces."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from specscope.tracer.cli.console import console
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_DIFFERENT, EXIT_EQUAL, SpecScopeError, worst_code
from specscope.tracer.oracle import OracleReport, check_trace
from specscope.tracer.rules import rule_text
from specscope.tracer.text import counted, printable


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--verbose", "-v", is_flag=True, help="List the invariants that passed, too.")
def check(files: tuple[Path, ...], form: str, verbose: bool) -> None:
    """Recompute every invariant of each trace from its records alone: no model, no accelerator.

    Exits 1 where one is violated, 2 where a file cannot be read, 4 where a trace is truncated; over several files with
    the worst of them: 1, then 2, 4.
    """
    code = EXIT_EQUAL
    for path in files:
        try:
            report = check_trace(path)
        except SpecScopeError as error:
            click.echo(f"error: {printable(str(error))}", err=True)
            code = worst_code((code, error.exit_code))
            continue
        if form == "json":
            click.echo(json.dumps(report_json(report)))
        else:
            print_report(report, verbose)
        code = worst_code((code, exit_code(report)))
    sys.exit(code)


def exit_code(report: OracleReport) -> int:
    """1 for a violation or a recorded failure, 4 for a truncated trace, else 0."""
    if report.num_violations or report.failures or report.end_reason == "failed":
        return EXIT_DIFFERENT
    return EXIT_COVERAGE if report.truncated or report.torn_bytes else EXIT_EQUAL


def report_json(report: OracleReport) -> dict[str, Any]:
    """The report as the object that ``--format json`` prints."""
    return {
        "file": printable(str(report.path)),
        "rule": rule_text(report.manifest.sampling),
        "exit_code": exit_code(report),
        "turns": report.num_turns,
        "steps": report.num_steps,
        "truncated": report.truncated,
        "torn_bytes": report.torn_bytes,
        "end_reason": report.end_reason,
        "failures": [failure.model_dump() for failure in report.failures],
        "invariants": {
            name: {
                "passed": tally.passed,
                "failed": tally.failed,
                "skipped": tally.skipped,
                "skipped_because": tally.why_skipped,
                "first": tally.first._asdict() if tally.first else None,
            }
            for name, tally in report.invariants.items()
        },
    }


def print_report(report: OracleReport, verbose: bool) -> None:
    """The report for people."""
    out = console()
    counts = [sum(getattr(t, name) for t in report.invariants.values()) for name in ("passed", "failed", "skipped")]
    mark = "[bold red]VIOLATED[/]" if report.num_violations else "[bold]ok[/]"
    if report.truncated or report.torn_bytes:
        mark += " [bold yellow]TRUNCATED[/]"
    if report.failures or report.end_reason == "failed":
        mark += " [bold red]FAILED RUN[/]"
    manifest = report.manifest
    out.print(f"{mark}  {escape(printable(str(report.path)))}", soft_wrap=True)
    out.print(
        f"    {manifest.mode}, {escape(printable(f'{manifest.dtype}, {manifest.device.backend}'))}, "
        f"{rule_text(manifest.sampling)}; {counted(report.num_turns, 'turn')}, "
        f"{counted(report.num_steps, 'step')}; checks: {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped",
        soft_wrap=True,
        highlight=False,
    )
    if report.torn_bytes:
        out.print(f"    a torn record of {counted(report.torn_bytes, 'byte')} was left out", highlight=False)
    elif report.truncated:
        out.print("    no run_end: the run was cut off", highlight=False)
    if report.end_reason == "interrupted":
        out.print("    the run was interrupted, and ended its trace properly", highlight=False)
    for failure in report.failures:
        where = f"turn {failure.turn}, step {failure.step}, phase {failure.phase}"
        out.print(f"    failed at {where}: {escape(printable(f'{failure.error}: {failure.message}'))}", soft_wrap=True)
    _print_invariants(report, verbose)


def _print_invariants(report: OracleReport, verbose: bool) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("    invariant")
    for name in ("passed", "failed", "skipped"):
        table.add_column(name, justify="right")
    table.add_column("first violation, or what holds", overflow="fold")
    for name, tally in report.invariants.items():
        if not (verbose or tally.failed or tally.skipped):
            continue
        text, style = tally.statement, "dim"
        if tally.why_skipped is not None:
            text += f" (skipped; {printable(tally.why_skipped)})"
        if tally.first is not None:
            at = tally.first
            place = f"turn {at.turn}, step {at.step}: " if at.step is not None else ""
            text, style = f"{place}{printable(at.witness)}" + (f" (line {at.line})" if at.line else ""), "red"
        cells = (str(n) if n else "-" for n in (tally.passed, tally.failed, tally.skipped))
        table.add_row("    " + name, *cells, f"[{style}]{escape(text)}[/]")
    if table.row_count:
        console().print(table)
