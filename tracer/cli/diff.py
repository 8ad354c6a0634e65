"""``specscope diff``: two traces, one card first, and the same report in the formats of CI."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from specscope.schemas.verdict import Verdict
from specscope.tracer.cli.console import console, echo_document, reading
from specscope.tracer.cli.options import allow_option, fail_on_option, noise_option, tokenizer_option, tolerance_option
from specscope.tracer.cli.sections import SectionedCommand
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.card import SHOWN_ROOTS
from specscope.tracer.report.formats import FORMATS, Target, check_targets, parse_target, write_whole
from specscope.tracer.report.report import Report
from specscope.tracer.report.text import print_verdict

SECTIONS = {
    "Judgement": ("noise", "tolerance", "allow", "fail_on"),
    "Report": ("form", "outs", "tokenizer"),
}


@click.command(short_help="Where two runs part, and which side is wrong", cls=SectionedCommand, sections=SECTIONS)
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option(
    "--out",
    "outs",
    multiple=True,
    metavar="FORMAT=FILE",
    help="Write the report to a file, too; replaces the file without asking. May be given several times.",
)
@noise_option
@tolerance_option
@allow_option
@fail_on_option
@tokenizer_option
def diff(
    baseline: Path,
    candidate: Path,
    form: str,
    outs: tuple[str, ...],
    noise: Path | None,
    tolerance: float | None,
    allow: tuple[str, ...],
    fail_on: str,
    tokenizer: Path | None,
) -> None:
    """Say where CANDIDATE parts from BASELINE, which side is wrong, and whether it matters.

    Exits 0 when equal except for drift and ties, 1 at a root difference or a violated invariant, 3 when the two runs
    are not comparable, 4 when too little was recorded to judge. Where no verdict is possible, the reports of --out
    say why.
    """
    options = DiffOptions(
        tolerance=tolerance, allowed=frozenset(allow), fail_on_ties=fail_on == "near-tie", noise=noise
    )
    targets = [parse_target(value) for value in outs]
    check_targets(targets, [path for path in (baseline, candidate, noise) if path is not None])
    try:
        report = make_report(baseline, candidate, options, TokenTexts.load_for(tokenizer, baseline, candidate))
        pages = [FORMATS[target.form].render(report) for target in targets]
    except Exception as error:  # of any kind: it goes on, but leaves no stale report behind
        known = isinstance(error, SpecScopeError)
        _write_error(targets, form, str(error) if known else f"{type(error).__name__}: {error}")
        raise
    for target, page in zip(targets, pages, strict=True):
        write_whole(target.path, page)
    if form == "text":
        print_verdict(console(), report)
    else:
        echo_document(FORMATS[form].render(report))
    sys.exit(report.verdict.exit_code)


def make_report(baseline: Path, candidate: Path, options: DiffOptions, texts: TokenTexts) -> Report:
    """Compares two traces, and takes in the token texts that they recorded where they part.

    Raises:
        TraceError: where one of them cannot be read.
    """
    begun = time.monotonic()
    with reading("comparing", [baseline, candidate], passes=2) as watch:
        verdict = diff_traces(baseline, candidate, options, watch=watch)
    _learn_texts(texts, verdict, baseline, candidate)
    return Report(verdict, texts, time.monotonic() - begun)


def _learn_texts(texts: TokenTexts, verdict: Verdict, baseline: Path, candidate: Path) -> None:
    """Where both have a text for a token, the baseline's stands."""
    places = [root.place for root in verdict.roots[:SHOWN_ROOTS]]
    sides = ((candidate, [(p.turn_b, p.step_b) for p in places]), (baseline, [(p.turn, p.step_a) for p in places]))
    for path, wanted in sides:
        with TraceReader(path) as reader:
            texts.redacted |= reader.manifest.redaction is not None
            entries = {entry.turn: entry for entry in reader.turns}
            for turn, step in wanted:
                if turn in entries and step < len(entries[turn].steps):
                    texts.learn(reader.step(entries[turn], step))


def _write_error(targets: list[Target], form: str, error: str) -> None:
    """A report of an earlier diff must not stand where this one came to nothing."""
    for target in targets:
        write_whole(target.path, FORMATS[target.form].render_error(error))
    if form in ("github", "junit"):
        echo_document(FORMATS[form].render_error(error))
