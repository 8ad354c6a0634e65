"""``specscope bench``: speed, acceptance, and what settings and tracing cost, as ratios of one run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from specscope.engine.cli.bench_batch import BATCH, measure_batches
from specscope.engine.cli.bench_calibrate import measuring_options
from specscope.engine.cli.bench_pipeline import PIPELINE, measure_pipeline
from specscope.engine.cli.choices import (
    CHOICE_SECTIONS,
    build_choice,
    build_processors,
    model_options,
    rule_options,
    tree_options,
)
from specscope.engine.cli.grammars import GRAMMAR_SECTIONS, build_grammar, grammar_options
from specscope.engine.lab.bench.batch.plan import SweepPlan
from specscope.engine.lab.bench.shards import Rank
from specscope.engine.lab.bench.suites import DEMO_PROMPTS, SUITES, load_files, load_suite, sample
from specscope.engine.lab.bench.variants import NAMES, SWEEPS, variants_of
from specscope.engine.settings import Settings
from specscope.tracer.cli.console import echo_words, keeping, progress, working
from specscope.tracer.cli.sections import SectionedCommand
from specscope.tracer.errors import CoverageError, SpecScopeError, UsageError
from specscope.tracer.files.writer import check_writable
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.report.formats import write_whole

if TYPE_CHECKING:
    from specscope.engine.lab.bench.measure import Plan
    from specscope.engine.lab.bench.report import BenchReport, RunFacts
    from specscope.engine.lab.bench.turns import TurnMeasure
    from specscope.engine.run.prompts import Prompt


SECTIONS = {
    "Prompts": ("prompts_files", "suite", "limit"),
    "Comparison": ("compare", "values", "overhead", "max_new_tokens", "rounds", "clock"),
    "Calibration and loads": ("calibrate", "rows", "contexts", "keep"),
    "Output": ("csv", "json", "markdown", "plots", "overwrite", "ranks"),
    **CHOICE_SECTIONS,
    **GRAMMAR_SECTIONS,
}
FILES = ("csv", "json", "markdown", "plots")
DEFAULT_SUITE = "demo240"  # of --suite batch, which has no prompts of its own
WAIT_S = 60  # for a rank that has not begun when rank 0 has ended


compare_option = click.option(
    "--compare",
    type=click.Choice(NAMES),
    default="modes",
    metavar="WHAT",
    show_default=True,
    help=f"What to compare: {', '.join(NAMES)}. analysis: baseline and speculation, both on the eager path.",
)


@click.command(short_help="Cost of modes, trees and tracing, as ratios", cls=SectionedCommand, sections=SECTIONS)
@click.option(
    "--prompts",
    "prompts_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A prompt file, as run takes it; may be given several times. Default: the demo's prompts.",
)
@click.option(
    "--suite",
    type=click.Choice([*SUITES, BATCH, PIPELINE]),
    help="Bundled prompts instead: demo240, 240 turns of Python source in 16 categories. batch: no speculation, each "
    "shape and --tree auto, by --rows and --contexts. ppsd: two stages of the demo, beside sequential decoding, their "
    "closed form, a simulation and EAGLE-3.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only so many prompts, balanced over the categories.")
@compare_option
@click.option("--values", help=f"Values of a sweep ({', '.join(SWEEPS)}), such as 4,8,16; none switches a setting off.")
@click.option("--overhead", is_flag=True, help="Short for --compare overhead: what tracing costs, at each level.")
@measuring_options
@model_options
@tree_options
@rule_options
@grammar_options
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
@click.option(
    "--ranks",
    type=click.Path(path_type=Path),
    help="Under torchrun: a new folder in which the ranks meet; each measures a part of the prompts.",
)
def bench(compare: str, overhead: bool, values: str | None, rounds: int, **options: Any) -> None:
    """Decode the same prompts in several ways, in turn; print speeds and ratios.

    Interrupted, it prints and writes what was measured until then, marked as partial.
    """
    if options["suite"] in (BATCH, PIPELINE):
        _measure_suite(rounds, options)
        return
    rank = Rank.of(os.environ)
    if rank.size > 1 and options["ranks"] is None:
        raise UsageError(f"got {rank.size} ranks, wanted a folder that all of them see: pass --ranks FOLDER")
    termination = click.get_current_context().with_resource(_Termination()) if options["ranks"] is not None else None
    if rank.number == 0:
        _check_files(options)
    compare = "overhead" if overhead else compare
    if options["calibrate"] is not None and (overhead or compare != "modes" or values is not None or rank.size > 1):
        raise UsageError("got --calibrate and what to compare, or several ranks: calibrate by itself, in one process")
    settings = _settings(options)
    if options["calibrate"] is not None:
        if settings.grammar is not None:
            raise UsageError("got --calibrate with a grammar, and a profile is of free text: drop one of them")
        _calibrate(settings, rounds, options)
        return
    if compare == "guided" and settings.grammar is None:
        raise UsageError("got --compare guided without a grammar: give --grammar, --json-schema or --regex")
    variants = variants_of(compare, settings.choice, _values(values))
    chosen = _prompts(options)
    with working("loading torch"):
        from specscope.engine.lab.bench.measure import Plan

    task = _Task(Plan(variants, chosen.prompts, settings, rounds, options["clock"]), compare, chosen.name)
    if termination is None:
        _measure_alone(task, options)
    else:
        _measure_part(task, rank, termination, options)


def _settings(options: dict[str, Any]) -> Settings:
    if options["keep"] is not None and options["suite"] != BATCH:
        raise UsageError(f"got --keep, which is of --suite {BATCH} and {PIPELINE}: drop it")
    return Settings(
        choice=build_choice(**options),
        max_new_tokens=options["max_new_tokens"],
        processors=build_processors(options),
        bad_words=tuple(options["bad_words"]),
        grammar=build_grammar(options),
    )


def _measure_suite(rounds: int, options: dict[str, Any]) -> None:
    """What is measured in another way than turn by turn."""
    _check_files(options)
    if options["suite"] == PIPELINE:
        measure_pipeline(rounds, options)
    else:
        measure_batches(_sweep_plan(rounds, options), options)


def _sweep_plan(rounds: int, options: dict[str, Any]) -> SweepPlan:
    chosen = _prompts({**options, "suite": None if options["prompts_files"] else DEFAULT_SUITE})
    rows, contexts = (_numbers(f"--{name}", options[name]) for name in ("rows", "contexts"))
    return SweepPlan(
        settings=_settings(options),
        prompts=chosen.prompts,
        texts=chosen.name,
        rows=rows,
        contexts=contexts,
        tokens=options["max_new_tokens"],
        rounds=rounds,
        clock=options["clock"],
        keep=options["keep"],
    )


def _calibrate(settings: Settings, rounds: int, options: dict[str, Any]) -> None:
    chosen = _prompts(options)
    rows, contexts = (_numbers(f"--{name}", options[name]) for name in ("rows", "contexts"))
    with working("loading torch"):
        from specscope.engine.cli.bench_calibrate import calibrate_and_write
        from specscope.engine.lab.bench.calibrate import CalibrationPlan

    plan = CalibrationPlan(
        settings=settings,
        prompts=chosen.prompts,
        texts=chosen.name,
        rows=rows,
        contexts=contexts,
        rounds=rounds,
        clock=options["clock"],
    )
    calibrate_and_write(plan, options["calibrate"], overwrite=options["overwrite"])


def _numbers(name: str, text: str) -> list[int]:
    """``1,2,4`` as numbers."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 9 for word in words):
        raise UsageError(f"got {name} {text}, wanted whole numbers with commas between them")
    return [int(word) for word in words]


class _Task(NamedTuple):
    """What is measured, and what it is called."""

    plan: Plan
    compare: str
    prompts: str  # the suite's name, or the files'


def _measure_alone(task: _Task, options: dict[str, Any]) -> None:
    from specscope.engine.lab.bench.facts import run_facts
    from specscope.engine.lab.bench.report import BenchReport

    plan = task.plan
    echo_words(_budget(plan), err=True)
    measures: list[TurnMeasure] = []
    interruption = _measure(plan, measures.append, nullcontext(), shown=True)
    if measures:
        facts = run_facts(plan, compare=task.compare, prompts=task.prompts)
        _publish(BenchReport(facts=facts, measures=measures, expected=plan.num_measures), options)
    if isinstance(interruption, KeyboardInterrupt):
        interruption.add_note("what was measured is kept, marked as partial" if measures else "nothing was measured")
    if interruption is not None:
        raise interruption


def _measure_part(task: _Task, rank: Rank, termination: _Termination, options: dict[str, Any]) -> None:
    """One rank's part; rank 0 then waits for the others, and reports for all."""
    from specscope.engine.lab.bench.facts import run_facts, use_local_device
    from specscope.engine.lab.bench.ranks import RankFile

    use_local_device(os.environ)
    facts = run_facts(task.plan, compare=task.compare, prompts=task.prompts, num_ranks=rank.size)
    file = RankFile(rank, options["ranks"], facts.to_json())
    if rank.number == 0:
        echo_words(f"{_budget(task.plan)}; {counted(rank.size, 'rank')}", err=True)
    part = task.plan._replace(prompts=rank.part_of(task.plan.prompts))
    interruption = _measure(part, file.add, termination.interrupting(), shown=rank.number == 0)
    file.close(interruption)
    if rank.number == 0:
        _report_all(task.plan, facts, options)
    if interruption is not None:
        raise interruption


def _report_all(plan: Plan, facts: RunFacts, options: dict[str, Any]) -> None:
    """What all ranks measured.

    Raises:
        CoverageError: where some of it is missing.
    """
    from specscope.engine.lab.bench.ranks import gather, merge, write_merged
    from specscope.engine.lab.bench.report import BenchReport

    folder, run = options["ranks"], facts.to_json()
    with keeping(f"what each rank measured is kept in {folder}"):
        merged = merge(gather(facts.num_ranks, folder, run, wait_s=WAIT_S), plan)
    path = write_merged(merged, folder, run)
    report = BenchReport(
        facts=facts,
        measures=merged.measures,
        expected=plan.num_measures,
        missing=merged.missing,
        problems=merged.problems,
    )
    if merged.measures:
        _publish(report, options)
    if merged.problems:
        lost = f"{len(merged.problems)} of {counted(facts.num_ranks, 'rank')}"
        problems = "" if merged.measures else f" ({'; '.join(merged.problems)})"
        raise CoverageError(f"{lost} did not end{problems}; {path} lists what is missing")


class _Termination:
    """What SIGTERM does in the block: it interrupts the measuring, now or as soon as that begins, and nothing else.
    torchrun sends it to all ranks where one was lost, and rank 0 still has to report what the others measured."""

    def __init__(self) -> None:
        self._asked = False
        self._measuring = False

    def __enter__(self) -> _Termination:
        self._before = signal.signal(signal.SIGTERM, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """The measuring."""
        self._measuring = True
        try:
            if self._asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._measuring = False

    def _end(self, *_: object) -> None:
        self._asked = True
        if self._measuring:
            raise KeyboardInterrupt


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


def _measure(
    plan: Plan, keep: Callable[[TurnMeasure], None], interrupting: AbstractContextManager[None], *, shown: bool
) -> KeyboardInterrupt | SpecScopeError | None:
    """Hands each measurement to ``keep``, within ``interrupting``; gives what ended it early."""
    from specscope.engine.lab.bench.measure import load_variants, measure

    try:
        with interrupting:
            with working("loading the teacher and the drafters"):
                models = load_variants(plan.variants)
            with progress("decoding", plan.num_measures, "turns", shown=shown) as advance:
                for turn in measure(plan, models):
                    keep(turn)
                    advance(turn.variant)
    except (KeyboardInterrupt, SpecScopeError) as error:
        return error
    return None


def _check_files(options: dict[str, Any]) -> None:
    """Refuses, before minutes of measuring, files that could not be written or drawn afterwards."""
    paths = [options[name] for name in FILES if options[name] is not None]
    if len(set(paths)) < len(paths):
        raise UsageError("got one file for two outputs: give each its own")
    for path in paths:
        check_writable(path, overwrite=options["overwrite"])
    if options["plots"] is not None:
        import_module("plotly.graph_objects")


def _publish(report: BenchReport, options: dict[str, Any]) -> None:
    """To the terminal and to every file that was asked for."""
    from specscope.engine.cli.bench_card import print_report
    from specscope.engine.lab.bench.files import RENDERERS

    print_report(report)
    for name in FILES:
        path = options[name]
        if path is not None:
            write_whole(path, RENDERERS[name](report))
            echo_words(printable(f"wrote {path}"), err=True)
