"""``specscope report``: the trees of a trace, or of where two part, as one file of HTML."""

from __future__ import annotations

from pathlib import Path

import click

from specscope.tracer.cli.options import allow_option, fail_on_option, noise_option, tokenizer_option, tolerance_option
from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.errors import UsageError
from specscope.tracer.report.formats import Target, check_targets, write_whole
from specscope.tracer.words.text import printable
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.report.choice import Wanted
from specscope.viewer.report.page import Written
from specscope.viewer.report.pair_report import PairTexts, pair_report
from specscope.viewer.report.run_report import run_report


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.argument("candidate", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="Where to write it; a file that is there is kept.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.option(
    "--roots", default=3, show_default=True, type=click.IntRange(1), help="Roots, or violated steps, to draw."
)
@click.option("--turn", type=click.IntRange(0), help="Of one trace: steps of this turn alone.")
@click.option("--step", type=click.IntRange(0), help="Of one trace: this step of the turn, and two around it.")
@click.option("--all-steps", is_flag=True, help="Of one trace: every step, violated or not.")
@click.option(
    "--max-steps", default=100, show_default=True, type=click.IntRange(1), help="Of one trace: at most so many."
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
    """Write the trees of TRACE, or of where CANDIDATE parts from TRACE, into one file of HTML.

    It needs no server and fetches nothing: keep it beside a CI job's log, or mail it. Of one trace it shows the first
    violated steps and two around each, or the first turn where none is violated; of two, the first being the baseline,
    the verdict, and the first roots with both trees and two pairs of steps around each.

    Exits 0 when it is written, whatever it says: specscope check and specscope diff are what to gate CI with. Exits 2,
    and writes nothing, where a trace cannot be read.
    """
    wanted = Wanted(turn, step, all_steps, max_steps, roots)
    options = DiffOptions(tolerance, frozenset(allow), fail_on == "near-tie", noise)
    _check_options(wanted, options, is_pair=candidate is not None)
    check_targets([Target("html", out)], [path for path in (trace, candidate, noise) if path is not None])
    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there already: name another file with --out, or pass --overwrite")
    found = _report(trace, candidate, wanted, options, tokenizer)
    write_whole(out, found.page)
    click.echo(printable(f"wrote {out} ({len(found.page.encode()) / 1e6:.2f} MB): {found.headline}"))


def _check_options(wanted: Wanted, options: DiffOptions, *, is_pair: bool) -> None:
    """Refuses what has no meaning here, rather than to leave it out without a word."""
    if wanted.step is not None and wanted.every_step:
        raise UsageError("got --step and --all-steps: wanted one of them")
    if is_pair and (wanted.turn is not None or wanted.step is not None or wanted.every_step):
        raise UsageError("--turn, --step and --all-steps choose steps of one trace; of two, the roots are drawn")
    if not is_pair and (options.allowed or options.noise is not None or options.tolerance is not None):
        raise UsageError("--allow, --noise and --tolerance are for two traces: name the candidate, too")


def _report(
    trace: Path, candidate: Path | None, wanted: Wanted, options: DiffOptions, tokenizer: Path | None
) -> Written:
    if candidate is None:
        return run_report(trace, wanted, TokenTexts.load_for(tokenizer, trace))
    texts = PairTexts(
        TokenTexts.load_for(tokenizer, trace, candidate), TokenTexts.load(tokenizer), TokenTexts.load(tokenizer)
    )
    return pair_report(trace, candidate, options, wanted.most_roots, texts)
