"""``specscope check``: the oracle over one or more traces."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from specscope.schemas import Manifest
from specscope.schemas.capabilities import is_known_capability
from specscope.schemas.phases import COMPARED_PHASES
from specscope.schemas.unknown import named
from specscope.tracer.cli.console import console, echo_words, reading
from specscope.tracer.errors import (
    EXIT_COVERAGE,
    EXIT_DIFFERENT,
    EXIT_EQUAL,
    SpecScopeError,
    UsageError,
    worst_code,
)
from specscope.tracer.naming.failures import stopped_text
from specscope.tracer.naming.rules import rule_text
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.needs import NOT_RECORDED
from specscope.tracer.oracle.report import OracleReport, Tally
from specscope.tracer.oracle.unknown import unknown_lines
from specscope.tracer.report.fitted import print_line, print_table

TABLE_WIDTH = 110  # columns of a terminal from which on the words have room beside the counts


def _required(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The names of ``--require``, each once.

    Raises:
        UsageError: where one names no section of a step, and no field of one.
    """
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    if value is not None and not names:
        raise UsageError("got no section for --require, wanted some, such as tree,verify,accept")
    for name in names:
        if name != "all" and not is_known_capability(name):
            near = named("step", name).nearest
            hint = (
                f"; the nearest is {near}" if near else f": all, or of {', '.join(COMPARED_PHASES)}, or section.field"
            )
            raise UsageError(f"got --require {name[:80]}, wanted a section of a step{hint}")
    return tuple(
        dict.fromkeys(section for name in names for section in (COMPARED_PHASES if name == "all" else (name,)))
    )


@click.command(short_help="Recompute every invariant of a trace")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--verbose", "-v", is_flag=True, help="List the invariants that passed, too.")
@click.option(
    "--require",
    metavar="SECTIONS",
    callback=_required,
    help="Sections, or section.field, that every step must have, with commas between them; all: every phase's.",
)
def check(files: tuple[Path, ...], form: str, verbose: bool, require: tuple[str, ...]) -> None:
    """Recompute every invariant of each trace from its records alone: no model, no accelerator.

    Exits 1 where one is violated, 2 where a file cannot be read, 4 where a trace is truncated or does not record what
    --require asks for; over several files with the worst of them: 1, then 2, 4.
    """
    code = EXIT_EQUAL
    for path in files:
        try:
            with reading("checking", [path]) as watch:
                report = check_trace(path, require, watch=watch)
        except SpecScopeError as error:
            echo_words(f"error: {printable(str(error))}", err=True)
            code = worst_code((code, error.exit_code))
            continue
        if form == "json":
            click.echo(json.dumps(report_json(report)))
        else:
            print_report(report, verbose)
        code = worst_code((code, exit_code(report)))
    sys.exit(code)


def exit_code(report: OracleReport) -> int:
    """1 for a violation or a recorded failure, 4 for a truncated trace or one that lacks what is required, else 0."""
    if report.num_violations or report.failures or report.end_reason == "failed":
        return EXIT_DIFFERENT
    return EXIT_COVERAGE if report.truncated or report.torn_bytes or report.unmet else EXIT_EQUAL


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
        "unknown_fields": [printable(line) for line in unknown_lines(report)],
        "required_and_absent": {name: report.absent[name] for name in report.unmet},
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
    manifest = report.manifest
    print_line(out, f"{_status(report)}  {escape(printable(str(report.path)))}")
    size = f"{counted(report.num_turns, 'turn')}, {counted(report.num_steps, 'step')}"
    settings = f"{escape(printable(_settings(manifest)))}, {rule_text(manifest.sampling)}"
    checks = f"checks: {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped"
    print_line(out, f"{settings}; {size}; {checks}", indent=4)
    if report.torn_bytes:
        print_line(out, f"a torn record of {counted(report.torn_bytes, 'byte')} was left out", indent=4)
    elif report.truncated:
        print_line(out, "no run_end: the run was cut off", indent=4)
    if report.end_reason == "interrupted":
        print_line(out, "the run was interrupted, and ended its trace properly", indent=4)
    for failure in report.failures:
        print_line(out, f"the run {escape(printable(stopped_text(failure)))}", indent=4)
    if report.end_reason == "failed" and not report.failures:
        why = "what is violated may be why" if report.num_violations else "its writer did not record why"
        print_line(out, f"the run failed, and {why}", indent=4)
    for name in report.unmet:
        missing = f"{name} in {report.absent[name]} of {report.num_steps} steps"
        print_line(out, f"required and not recorded: {missing}", indent=4)
    for line in unknown_lines(report):
        print_line(out, f"unknown field: {escape(printable(line))}", indent=4)
    _print_invariants(report, verbose)


def _settings(manifest: Manifest) -> str:
    """What ran, as far as the writer knows."""
    if manifest.level == "lengths":
        of_which = ", of steps that verified a draft" if manifest.omits_idle_steps else ""
        return f"{manifest.engine}, lengths only{of_which}"
    return f"{manifest.mode}, {manifest.dtype}, {manifest.device.backend}"


def _status(report: OracleReport) -> str:
    """What is wrong with the trace, as markup; "ok" only where ``exit_code`` is 0."""
    words = ["[bold red]VIOLATED[/]"] if report.num_violations else []
    if report.failures or report.end_reason == "failed":
        words.append("[bold red]FAILED RUN[/]")
    if report.truncated or report.torn_bytes:
        words.append("[bold yellow]TRUNCATED[/]")
    if report.unmet:
        words.append("[bold yellow]NOT RECORDED[/]")
    return ", ".join(words) or "[bold]ok[/]"


def _print_invariants(report: OracleReport, verbose: bool) -> None:
    """The invariants that failed or were skipped, with their words; in a few lines those that were skipped in every
    step, unless ``verbose`` lists each by itself."""
    tallies = {name: tally for name, tally in report.invariants.items() if verbose or tally.failed or tally.skipped}
    out = console()
    unjudged = {} if verbose else {name: t for name, t in tallies.items() if not (t.passed or t.failed)}
    tallies = {name: tally for name, tally in tallies.items() if name not in unjudged}
    if out.width >= TABLE_WIDTH:
        if tallies:
            print_table(out, _table(tallies))
    else:
        _print_list(tallies)
    if unjudged and report.manifest.level == "lengths":  # nearly all need more than lengths
        print_line(out, f"{len(unjudged)} invariants need more than lengths, and were skipped", indent=4)
    elif unjudged:
        _print_unjudged(unjudged, len(report.invariants))


def _print_list(tallies: dict[str, Tally]) -> None:
    out = console()
    for name, tally in tallies.items():
        counts = {"passed": tally.passed, "failed": tally.failed, "skipped": tally.skipped}
        words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        print_line(out, f"{name}: {words or 'not judged'}", indent=4)
        print_line(out, _in_words(tally), indent=8)


def _print_unjudged(unjudged: dict[str, Tally], num_invariants: int) -> None:
    """The invariants that no step could be judged by, and what there would have to be."""
    out = console()
    whys = {name: tally.why_skipped or "no reason given" for name, tally in unjudged.items()}
    absent = dict.fromkeys(why.removeprefix(NOT_RECORDED) for why in whys.values() if why.startswith(NOT_RECORDED))
    others = [f"{name}: {why}" for name, why in whys.items() if not why.startswith(NOT_RECORDED)]
    lines = [f"{NOT_RECORDED}{', '.join(absent)}"] if absent else []
    print_line(out, f"{len(unjudged)} of {num_invariants} invariants were not judged (--verbose names them)", indent=4)
    for line in (*lines, *others):
        print_line(out, escape(printable(line)), indent=6)


def _table(tallies: dict[str, Tally]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("    invariant", no_wrap=True)
    for name in ("passed", "failed", "skipped"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first violation, or what holds", overflow="fold")
    for name, tally in tallies.items():
        cells = (str(n) if n else "-" for n in (tally.passed, tally.failed, tally.skipped))
        table.add_row("    " + name, *cells, _in_words(tally))
    return table


def _in_words(tally: Tally) -> str:
    """The first violation, else what holds and why it was skipped, as markup."""
    at = tally.first
    if at is not None:
        place = f"turn {at.turn}, step {at.step}: " if at.step is not None else ""
        line = f" (line {at.line})" if at.line else ""
        return f"[red]{escape(f'{place}{printable(at.witness)}{line}')}[/]"
    skipped = "" if tally.why_skipped is None else f" (skipped; {printable(tally.why_skipped)})"
    return f"[dim]{escape(tally.statement + skipped)}[/]"
