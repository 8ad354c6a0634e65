"""``specscope train``: the demo models from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from specscope.engine.cli.computing import device_option
from specscope.tracer.errors import UsageError

if TYPE_CHECKING:
    from specscope.engine.lab.training.head import HeadRecipe
    from specscope.engine.lab.training.plan import TrainingPlan

EXIT_LAYERS = (4, 2, 6)  # of the demo's exit heads
ONLINE_SHARE = 2  # one row of a batch in so many is written online
FURTHER_RATE = 0.25  # of the learning rates from scratch: what the head knows is not to be lost at once
FURTHER_WARMUP = 10  # one update in so many


@click.command(short_help="Train the demo models from scratch")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and results.")
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="Folder of Python files.  [default: the standard library]"
)
@click.option("--teacher-steps", default=1600, show_default=True)
@click.option("--unlikelihood-steps", default=240, show_default=True, help="Updates against repetition; 0: none.")
@click.option(
    "--head-steps",
    default=1200,
    show_default=True,
    help="Updates of each EAGLE-3 head; a head that has fewer is trained further, from its last checkpoint.",
)
@click.option(
    "--head-layers",
    "head_layers",
    type=click.IntRange(min=1),
    multiple=True,
    help="Decoder layers of an EAGLE-3 head; give it once for each head.  [default: 1; none with --teacher]",
)
@click.option(
    "--online",
    is_flag=True,
    help="Train each EAGLE-3 head a second time, half on text that its own drafts lead to, written as it trains.",
)
@click.option(
    "--start-from",
    help="Let the EAGLE-3 heads continue from this one for the same teacher: a folder, or demo. Layers that it lacks "
    "are added, and change nothing at first.  [default: begin from scratch]",
)
@click.option("--exit-head-steps", default=800, show_default=True)
@click.option(
    "--exit-layer",
    "exit_layers",
    type=int,
    multiple=True,
    help="Layers before an exit head; give it once for each head.  [default: 4, 2, 6; none with --teacher and "
    "--head-layers]",
)
@click.option("--teacher", help="Train heads only, for this teacher: a folder, or demo.  [default: train a teacher]")
@click.option("--self-text-rows", default=4096, show_default=True, help="Rows of 256 tokens that the teacher writes.")
@device_option
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=False,
    help="Compile the losses with torch.compile; requires a compiler.",
)
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def train(teacher: str | None, head_layers: tuple[int, ...], exit_layers: tuple[int, ...], **options: Any) -> None:
    """Train tokenizer, teacher, EAGLE-3 head and exit heads from scratch, and measure them. Resumes where it stopped.

    With --teacher, only heads are trained, on text that this teacher writes: EAGLE-3 heads of --head-layers, and exit
    heads.
    """
    if options["online"] and teacher is not None and not head_layers:
        raise UsageError("got --online and --teacher, and no head to train online: give --head-layers too")
    if options["start_from"] is not None and not (teacher is not None and head_layers):
        raise UsageError(
            "got --start-from, wanted the teacher that the head was trained for, and how many layers to continue with: "
            "give --teacher and --head-layers too"
        )
    if not head_layers and teacher is None:
        head_layers = (1,)
    if not exit_layers and not (teacher is not None and head_layers):
        exit_layers = EXIT_LAYERS

    from specscope.engine.host import num_threads
    from specscope.engine.lab.training.pipeline import run_pipeline

    plan = _plan(teacher, dict.fromkeys(head_layers), dict.fromkeys(exit_layers), options)
    with num_threads(options["threads"]):
        measurements = run_pipeline(plan)
    click.echo(json.dumps(measurements, indent=2))


def _plan(
    teacher: str | None, head_layers: Iterable[int], exit_layers: Iterable[int], options: dict[str, Any]
) -> TrainingPlan:
    from specscope.engine.lab.training.corpus import stdlib_root
    from specscope.engine.lab.training.exit_head import ExitHeadRecipe
    from specscope.engine.lab.training.plan import TrainingPlan
    from specscope.engine.lab.training.teacher import TeacherRecipe
    from specscope.engine.lab.training.unlikelihood import UnlikelihoodRecipe
    from specscope.engine.load.models import DEMO_MODELS, resolve_device

    exit_steps, start = options["exit_head_steps"], options["start_from"]
    return TrainingPlan(
        corpus=options["corpus"] or stdlib_root(),
        work=options["work"],
        teacher=TeacherRecipe(num_steps=options["teacher_steps"]),
        unlikelihood=UnlikelihoodRecipe(num_steps=options["unlikelihood_steps"]),
        heads=tuple(
            recipe
            for layers in head_layers
            for recipe in _head_recipes(_recipe(layers, options["head_steps"], start), online=options["online"])
        ),
        exit_heads=tuple(
            ExitHeadRecipe(exit_layer=layer, num_steps=exit_steps, sharp_from=exit_steps // 2) for layer in exit_layers
        ),
        self_text_rows=options["self_text_rows"],
        device=resolve_device(options["device"]),
        compiled=options["compiled"],
        given_teacher=DEMO_MODELS / "teacher" if teacher == "demo" else Path(teacher) if teacher else None,
        start_from=DEMO_MODELS / "drafter" if start == "demo" else Path(start) if start else None,
    )


def _recipe(num_layers: int, num_steps: int, start: str | None) -> HeadRecipe:
    """Of a head on fixed text. One that continues from another is trained more gently, and by sharpened targets alone,
    as the other was in the end."""
    from specscope.engine.lab.training.head import HeadRecipe

    recipe = HeadRecipe(num_layers=num_layers, num_steps=num_steps, sharp_from=num_steps // 2)
    if start is None:
        return recipe
    return replace(
        recipe,
        sharp_from=0,
        muon_lr=FURTHER_RATE * recipe.muon_lr,
        adam_lr=FURTHER_RATE * recipe.adam_lr,
        warmup=max(1, num_steps // FURTHER_WARMUP),
    )


def _head_recipes(recipe: HeadRecipe, *, online: bool) -> Iterator[HeadRecipe]:
    """A head on fixed text and, where it is asked for, the same one online, from about where targets are sharpened."""
    yield recipe
    if online:
        begins = recipe.sharp_from - recipe.sharp_from % recipe.online_reuse
        yield replace(recipe, online_rows=recipe.batch_size // ONLINE_SHARE, online_from=begins)
