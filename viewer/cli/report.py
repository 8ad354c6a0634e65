"""``specscope report``: the trees of a trace, or of where two traces diverge, as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from specscope.tracer.cli.console import echo_words
from specscope.tracer.cli.options import allow_option, fail_on_option, noise_option, tokenizer_option, tolerance_option
from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.errors import FileTakenError, UsageError
from specscope.tracer.naming.text import printable
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.formats import Target, check_targets, write_whole
from specscope.viewer.report.choice import Wanted
from specscope.viewer.report.page import Written
from specscope.viewer.report.pair_report import ROOTS_IN_REPORT, PairTexts, pair_report
from specscope.viewer.report.run_report import run_report


@click.command(short_help="The trees in one HTML file, without a server")
@click.argument("trace", type=click.Path(path_type=Path))
@click.argument("candidate", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="Where to write it; an existing file is kept.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option(
    "--roots",
    default=ROOTS_IN_REPORT,
    show_default=True,
    type=click.IntRange(1),
    help="How many roots, or violated steps, to draw.",
)
@click.option("--turn", type=click.IntRange(0), help="With one trace: draw only steps of this turn.")
@click.option(
    "--step", type=click.IntRange(0), help="With one trace: draw this step of the turn, and two before and after it."
)
@click.option("--all-steps", is_flag=True, help="With one trace: draw every step, violated or not.")
@click.option(
    "--max-steps",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="With one trace: draw at most N steps.",
    metavar="N",
)
@noise_option
@tolerance_option
@allow_option
@fail_on_option
@tokenizer_option
def report(
    trace: Path,
    candidate: Path | None,
    out: Path,
    overwrite: bool,
    roots: int,
    turn: int | None,
    step: int | None,
    all_steps: bool,
    max_steps: int,
    noise: Path | None,
    tolerance: float | None,
    allow: tuple[str, ...],
    fail_on: str,
    tokenizer: Path | None,
) -> None:
    """Write the trees of TRACE, or of where CANDIDATE diverges from TRACE, into one HTML file.

    The file needs no server and fetches nothing: keep it beside a CI job's log, or mail it. For one trace it shows the
    first violated steps and two around each, or the first turn where none is violated. For two traces, of which the
    first is the baseline, it shows the verdict, then both trees of the first roots and of two pairs around each.

    Exits 0 once it is written, whatever it says: use specscope check and specscope diff to gate CI. Exits 2, and writes
    nothing, where a trace cannot be read.
    """
    wanted = Wanted(turn=turn, step=step, every_step=all_steps, most_steps=max_steps, most_roots=roots)
    options = DiffOptions(tolerance, frozenset(allow), fail_on == "near-tie", noise)
    _check_options(wanted, options, is_pair=candidate is not None)
    _check_out(out, [path for path in (trace, candidate, noise) if path is not None], overwrite=overwrite)
    if candidate is None:
        written = run_report(trace, wanted, TokenTexts.load_for(tokenizer, trace))
    else:
        written = _of_pair(trace, candidate, options, roots, tokenizer=tokenizer)
    _write(out, written)


def _write(out: Path, written: Written) -> None:
    write_whole(out, written.page)
    echo_words(printable(f"wrote {out} ({len(written.page.encode()) / 1e6:.2f} MB): {written.headline}"))


def _check_out(out: Path, read: list[Path], *, overwrite: bool) -> None:
    """Refuses to write over a file that is read, or over any that is there unless asked to."""
    check_targets([Target("html", out)], read)
    if out.exists() and not overwrite:
        raise FileTakenError(out)


def _of_pair(trace: Path, candidate: Path, options: DiffOptions, roots: int, *, tokenizer: Path | None) -> Written:
    texts = PairTexts.load(tokenizer, trace, candidate)
    return pair_report(trace, candidate, options, most_roots=roots, texts=texts)


def _check_options(wanted: Wanted, options: DiffOptions, *, is_pair: bool) -> None:
    """Refuses options that have no meaning here, rather than ignoring them silently."""
    if wanted.step is not None and wanted.every_step:
        raise UsageError("got --step and --all-steps: pass only one of them")
    if is_pair and (wanted.turn is not None or wanted.step is not None or wanted.every_step):
        raise UsageError(
            "--turn, --step and --all-steps choose steps of one trace; for two traces, the roots are drawn"
        )
    if not is_pair and (options.allowed or options.noise is not None or options.tolerance is not None):
        raise UsageError("--allow, --noise and --tolerance are for two traces: name the candidate as well")
