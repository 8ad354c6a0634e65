"""``specscope bench --calibrate``: measures a profile, writes it, and prints what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from specscope.tracer.cli.console import console, echo_words, progress, working
from specscope.tracer.files.writer import check_writable
from specscope.tracer.naming.text import printable
from specscope.tracer.report.fitted import print_table
from specscope.tracer.report.formats import write_whole

if TYPE_CHECKING:
    from specscope.engine.lab.bench.calibrate import CalibrationPlan
    from specscope.schemas.profile import Profile


def measuring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is calibrated, at which loads, and by which clock anything is measured."""
    options = (
        click.option(
            "--calibrate",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Compare nothing; measure what steps cost here, and accept, and write this profile for --tree auto.",
        ),
        click.option(
            "--rows",
            default="1,2,4,8",
            show_default=True,
            help="To calibrate, and of --suite batch: rows side by side.",
        ),
        click.option(
            "--contexts",
            default="128,512,1024",
            show_default=True,
            help="To calibrate, and of --suite batch: tokens of each row when it begins.",
        ),
        click.option(
            "--keep",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="FOLDER",
            help="Of --suite batch and ppsd: put what is measured there; what is there is not measured again.",
        ),
        click.option(
            "--clock",
            type=click.Choice(["wall", "processor"]),
            default="wall",
            show_default=True,
            help="processor: what this process computes; for a CPU that others use too, with OMP_NUM_THREADS=1.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def calibrate_and_write(plan: CalibrationPlan, path: Path, *, overwrite: bool) -> None:
    """Measures ``plan`` and writes the profile to ``path``.

    Raises:
        UsageError: where it cannot be measured, or the file not be written.
    """
    from specscope.engine.lab.bench.calibrate import calibrate, check_plan
    from specscope.engine.load.models import load_models

    check_writable(path, overwrite=overwrite)
    check_plan(plan)
    with working("loading the teacher and the drafter"):
        models = load_models(plan.settings.choice)
    with progress("measuring", plan.num_steps, "steps", shown=True) as advance:
        profile = calibrate(plan, models, advance)
    write_whole(path, profile.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n")
    _print_profile(profile)
    echo_words(printable(f"wrote {path}"), err=True)


def _print_profile(profile: Profile) -> None:
    """Tokens per second of each shape at each load, as the profile predicts them."""
    from specscope.tracer.files.profiles import table_of
    from specscope.tracer.shapes import Load, promised

    shapes = table_of(profile, "0" * 32)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("rows", "context", *(shape.name for shape in shapes.shapes), "best"):
        table.add_column(name, justify="right", no_wrap=True)
    for load in shapes.loads:
        values = promised(shapes, Load(load.rows, load.context))
        best = shapes.shapes[values.index(max(values))].name
        table.add_row(str(load.rows), str(load.context), *(f"{value:.1f}" for value in values), best)
    tokens = (f"{shape.tokens_per_step:.2f}" for shape in shapes.shapes)
    table.add_row("", "tokens per step", *tokens, "")
    out = console()
    print_table(out, table)
    out.print("Tokens per second of all rows, by the medians of the steps that were timed.", style="dim")
