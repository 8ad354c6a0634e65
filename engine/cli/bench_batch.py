"""``specscope bench --suite batch``: what speculation is worth by load, and what the dispatcher makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from specscope.engine.cli.bench_pipeline import given_options, listed
from specscope.engine.lab.bench.batch.plan import SweepPlan
from specscope.tracer.cli.console import echo_words, progress, working
from specscope.tracer.errors import SpecScopeError, UsageError
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.report.formats import write_whole

if TYPE_CHECKING:
    from specscope.engine.lab.bench.batch.record import BatchMeasure
    from specscope.engine.lab.bench.batch.report import SweepReport

BATCH = "batch"
#: Options of ``bench`` that say nothing of a sweep over loads.
OF_OTHERS = {"compare", "values", "overhead", "calibrate", "csv", "ranks", "grammar", "json_schema", "regex"}


def measure_batches(plan: SweepPlan, options: dict[str, Any]) -> None:
    """Measures ``plan`` by the options of ``bench``, whose files were checked.

    Raises:
        UsageError: for an option of other measurements, or a plan without a profile.
    """
    if others := given_options() & OF_OTHERS:
        raise UsageError(f"got {listed(others)} with --suite {BATCH}, which compares rows and contexts: drop it")
    loads, ways = counted(len(plan.loads), "load"), counted(len(plan.ways), "way")
    echo_words(f"{loads} x {ways} x {counted(plan.rounds, 'round')}", err=True)
    measures: list[BatchMeasure] = []
    interruption = _measure(plan, measures)
    if measures:
        _publish(_report(plan, measures), options)
    if isinstance(interruption, KeyboardInterrupt):
        kept = "" if plan.keep is None else f", and kept in {plan.keep}: the same command continues there"
        interruption.add_note(f"{counted(len(measures), 'measurement')} made{kept}")
    if interruption is not None:
        raise interruption


def _measure(plan: SweepPlan, measures: list[BatchMeasure]) -> KeyboardInterrupt | SpecScopeError | None:
    """Fills ``measures``; gives what ended it early."""
    from specscope.engine.lab.bench.batch.measure import measure
    from specscope.engine.load.models import load_models

    try:
        with working("loading the teacher and the drafter"):
            models = load_models(plan.settings.choice)
        with progress("decoding", plan.num_measures, "ways", shown=True) as advance:
            for round_ in measure(plan, models, advance):
                measures += round_
    except (KeyboardInterrupt, SpecScopeError) as error:
        return error
    return None


def _report(plan: SweepPlan, measures: list[BatchMeasure]) -> SweepReport:
    from specscope.engine.lab.bench.batch.report import SweepFacts, SweepReport
    from specscope.engine.lab.bench.facts import measured_by

    table, rule = plan.table, plan.settings.choice.rule
    facts = SweepFacts(
        texts=plan.texts,
        tokens=plan.tokens,
        rounds=plan.rounds,
        clock=plan.clock,
        rule=rule.rule,
        profile=table.profile,
        hysteresis=table.hysteresis,
        **measured_by(plan.settings.choice),
    )
    return SweepReport(facts=facts, ways=plan.ways, measures=measures, expected=plan.num_measures)


def _publish(report: SweepReport, options: dict[str, Any]) -> None:
    """To the terminal and to every file that was asked for."""
    from specscope.engine.cli.bench_card import print_tables
    from specscope.engine.lab.bench.batch.plot import render_sweep
    from specscope.engine.lab.bench.files import markdown_of

    print_tables(report.tables(), report.remarks)
    renderers: dict[str, Callable[[], str]] = {
        "json": lambda: orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2).decode() + "\n",
        "markdown": lambda: markdown_of(f"specscope bench --suite {BATCH}", report.tables(), report.remarks),
        "plots": lambda: render_sweep(report),
    }
    for name, render in renderers.items():
        path: Path | None = options[name]
        if path is not None:
            write_whole(path, render())
            echo_words(printable(f"wrote {path}"), err=True)
