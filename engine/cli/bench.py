"""``specscope bench``: speed, acceptance, and what settings and tracing cost, as ratios of one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from specscope.engine.cli.choices import (
    CHOICE_SECTIONS,
    build_choice,
    build_processors,
    model_options,
    rule_options,
    tree_options,
)
from specscope.engine.lab.bench.suites import DEMO_PROMPTS, SUITES, load_files, load_suite, sample
from specscope.engine.lab.bench.variants import NAMES, SWEEPS, variants_of
from specscope.engine.settings import Settings
from specscope.tracer.cli.console import progress, working
from specscope.tracer.cli.sections import SectionedCommand
from specscope.tracer.errors import SpecScopeError, UsageError
from specscope.tracer.files.writer import check_writable
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.report.formats import write_whole

if TYPE_CHECKING:
    from specscope.engine.lab.bench.measure import Plan
    from specscope.engine.lab.bench.report import BenchReport
    from specscope.engine.lab.bench.turns import TurnMeasure
    from specscope.engine.load.models import Models
    from specscope.engine.run.prompts import Prompt


SECTIONS = {
    "Prompts": ("prompts_files", "suite", "limit"),
    "Comparison": ("compare", "values", "overhead", "max_new_tokens", "rounds"),
    "Output": ("csv", "json", "markdown", "plots", "overwrite"),
    **CHOICE_SECTIONS,
}
FILES = ("csv", "json", "markdown", "plots")


@click.command(short_help="Cost of modes, trees and tracing, as ratios", cls=SectionedCommand, sections=SECTIONS)
@click.option(
    "--prompts",
    "prompts_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A prompt file, as run takes it; may be given several times. Default: the demo's prompts.",
)
@click.option(
    "--suite", type=click.Choice(SUITES), help="Bundled prompts instead: 240 turns of Python source in 16 categories."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only so many prompts, balanced over the categories.")
@click.option(
    "--compare",
    type=click.Choice(NAMES),
    default="modes",
    show_default=True,
    help="What to compare. analysis: baseline and speculation, both on the eager path.",
)
@click.option("--values", help=f"Values of a sweep ({', '.join(SWEEPS)}), such as 4,8,16; none switches a setting off.")
@click.option("--overhead", is_flag=True, help="Short for --compare overhead: what tracing costs, at each level.")
@model_options
@tree_options
@rule_options
@click.option("--max-new-tokens", default=64, show_default=True, help="Maximum new tokens per turn.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often every turn is measured."
)
@click.option("--csv", type=click.Path(path_type=Path), help="Write a row per measured turn to this file.")
@click.option("--json", type=click.Path(path_type=Path), help="Write settings, summaries and turns to this file.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables to this file.")
@click.option(
    "--plots", type=click.Path(path_type=Path), help="Write figures to this HTML file; needs the viewer extra."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def bench(compare: str, overhead: bool, values: str | None, rounds: int, **options: Any) -> None:
    """Decode the same prompts in several ways, in turn; print speeds and ratios.

    Interrupted, it prints and writes what was measured until then, marked as partial.
    """
    _check_files(options)
    compare = "overhead" if overhead else compare
    choice = build_choice(**options)
    settings = Settings(
        choice=choice,
        max_new_tokens=options["max_new_tokens"],
        processors=build_processors(options),
        bad_words=tuple(options["bad_words"]),
    )
    variants = variants_of(compare, choice, _values(values))
    chosen = _prompts(options)
    with working("loading torch, the teacher and the drafters"):
        from specscope.engine.lab.bench.facts import run_facts
        from specscope.engine.lab.bench.measure import Plan, load_variants
        from specscope.engine.lab.bench.report import BenchReport

        plan = Plan(variants, chosen.prompts, settings, rounds)
        models = load_variants(variants)
    click.echo(_budget(plan), err=True)
    measures, interruption = _measure(plan, models)
    if measures:
        facts = run_facts(plan, compare=compare, prompts=chosen.name)
        _publish(BenchReport(facts=facts, measures=measures, expected=plan.num_measures), options)
    if interruption is not None:
        raise interruption


class _Chosen(NamedTuple):
    """What is decoded."""

    prompts: list[Prompt]
    name: str  # of the suite or the files


def _prompts(options: dict[str, Any]) -> _Chosen:
    files, suite = options["prompts_files"], options["suite"]
    if files and suite is not None:
        raise UsageError("got --prompts and --suite: pass only one of them")
    if suite is not None:
        prompts, name = load_suite(suite), suite
    else:
        files = files or (DEMO_PROMPTS,)
        prompts, name = load_files(files), ", ".join(path.name for path in files)
    return _Chosen(sample(prompts, options["limit"]), name)


def _values(text: str | None) -> list[int | None] | None:
    """``4,8,none`` as values of a sweep."""
    if text is None:
        return None
    values: list[int | None] = []
    for word in text.split(","):
        if word.strip() != "none" and not word.strip().isdecimal():
            raise UsageError(f"got the value {word.strip()!r}, wanted whole numbers or none, with commas between them")
        values.append(None if word.strip() == "none" else int(word))
    return values


def _budget(plan: Plan) -> str:
    """How much there is to do."""
    turns = plan.num_turns // len(plan.variants) // plan.rounds
    return (
        f"{counted(turns, 'turn')} x {counted(len(plan.variants), 'variant')} x {counted(plan.rounds, 'round')}: "
        f"at most {plan.num_turns * plan.settings.max_new_tokens:,} tokens"
    )


def _measure(plan: Plan, models: dict[str, Models]) -> tuple[list[TurnMeasure], BaseException | None]:
    """What was measured, and what ended it early."""
    from specscope.engine.lab.bench.measure import measure

    measures: list[TurnMeasure] = []
    try:
        with progress("decoding", plan.num_measures, "turns", shown=True) as advance:
            for turn in measure(plan, models):
                measures.append(turn)
                advance(turn.variant)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("what was measured is kept, marked as partial" if measures else "nothing was measured")
        return measures, interrupt
    except SpecScopeError as error:
        return measures, error
    return measures, None


def _check_files(options: dict[str, Any]) -> None:
    """Refuses, before minutes of measuring, files that could not be written or drawn afterwards."""
    paths = [options[name] for name in FILES if options[name] is not None]
    if len(set(paths)) < len(paths):
        raise UsageError("got one file for two outputs: give each its own")
    for path in paths:
        check_writable(path, overwrite=options["overwrite"])
    if options["plots"] is not None:
        import plotly.graph_objects  # noqa: F401


def _publish(report: BenchReport, options: dict[str, Any]) -> None:
    """To the terminal and to every file that was asked for."""
    from specscope.engine.cli.bench_card import print_report
    from specscope.engine.lab.bench.files import RENDERERS

    print_report(report)
    for name in FILES:
        path = options[name]
        if path is not None:
            write_whole(path, RENDERERS[name](report))
            click.echo(printable(f"wrote {path}"), err=True)
