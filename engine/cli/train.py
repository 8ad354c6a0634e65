"""``specscope train``: the demo models from scratch."""

from __future__ import annotations

import json
from pathlib import Path

import click

from specscope.engine.cli.computing import device_option

EXIT_LAYERS = (4, 2, 6)  # of the demo's exit heads


@click.command(short_help="Train the demo models from scratch")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and results.")
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="Folder of Python files.  [default: the standard library]"
)
@click.option("--teacher-steps", default=1600, show_default=True)
@click.option("--unlikelihood-steps", default=240, show_default=True, help="Updates against repetition; 0: none.")
@click.option("--head-steps", default=1200, show_default=True)
@click.option("--exit-head-steps", default=800, show_default=True)
@click.option(
    "--exit-layer",
    "exit_layers",
    type=int,
    multiple=True,
    default=EXIT_LAYERS,
    show_default=True,
    help="Layers before an exit head; give it once for each head.",
)
@click.option(
    "--teacher", help="Train exit heads only, for this teacher: a folder, or demo.  [default: train a teacher]"
)
@click.option("--self-text-rows", default=4096, show_default=True, help="Rows of 256 tokens that the teacher writes.")
@device_option
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=False,
    help="Compile the losses with torch.compile; requires a compiler.",
)
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def train(
    work: Path,
    corpus: Path | None,
    teacher_steps: int,
    unlikelihood_steps: int,
    head_steps: int,
    exit_head_steps: int,
    exit_layers: tuple[int, ...],
    teacher: str | None,
    self_text_rows: int,
    device: str,
    compiled: bool,
    threads: int,
) -> None:
    """Train tokenizer, teacher, EAGLE-3 head and exit heads from scratch, and measure them. Resumes where it stopped.

    With --teacher, only exit heads are trained, on text that this teacher writes.
    """
    import torch

    from specscope.engine.lab.training.corpus import stdlib_root
    from specscope.engine.lab.training.exit_head import ExitHeadRecipe
    from specscope.engine.lab.training.head import HeadRecipe
    from specscope.engine.lab.training.pipeline import TrainingPlan, run_pipeline
    from specscope.engine.lab.training.teacher import TeacherRecipe
    from specscope.engine.lab.training.unlikelihood import UnlikelihoodRecipe
    from specscope.engine.load.models import DEMO_MODELS, resolve_device

    torch.set_num_threads(threads)
    plan = TrainingPlan(
        corpus=corpus or stdlib_root(),
        work=work,
        teacher=TeacherRecipe(num_steps=teacher_steps),
        unlikelihood=UnlikelihoodRecipe(num_steps=unlikelihood_steps),
        head=HeadRecipe(num_steps=head_steps),
        exit_heads=tuple(
            ExitHeadRecipe(exit_layer=layer, num_steps=exit_head_steps, sharp_from=exit_head_steps // 2)
            for layer in dict.fromkeys(exit_layers)
        ),
        self_text_rows=self_text_rows,
        device=resolve_device(device),
        compiled=compiled,
        given_teacher=DEMO_MODELS / "teacher" if teacher == "demo" else Path(teacher) if teacher else None,
    )
    click.echo(json.dumps(run_pipeline(plan), indent=2))
