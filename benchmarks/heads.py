"""What EAGLE-3 heads of one teacher are worth beside each other: acceptance by depth, the cost of drafting, speed.

    python -m benchmarks.heads FOLDER... [--teacher demo] [--limit N] [--tokens N] [--rounds N] [--threads N]

Every turn is decoded by every head in turn, and by the teacher alone, so that a machine that drifts slows all alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import torch

from specscope.engine.lab.bench.measure import Plan, load_variants, measure
from specscope.engine.lab.bench.suites import SUITES, load_suite, sample
from specscope.engine.lab.bench.summary import VariantSummary, summarise
from specscope.engine.lab.bench.variants import Variant
from specscope.engine.settings import ModelChoice, Settings
from specscope.tracer.errors import EngineError


def compared(folders: Sequence[Path], teacher: str) -> list[Variant]:
    """The teacher alone, and each head by its folder's name."""
    alone = Variant(name="baseline", choice=ModelChoice(teacher=teacher, mode="baseline"))
    return [alone, *(Variant(name=f.name, choice=ModelChoice(teacher=teacher, drafter=f"eagle3:{f}")) for f in folders)]


def rows(summaries: Sequence[VariantSummary]) -> Iterator[str]:
    """A Markdown table.

    Raises:
        EngineError: where a head's output is not the teacher's own.
    """
    yield "| head | accepted length | at least 1 / 2 / 3 / 4 / 5 | ms drafting per step | tokens/s | over baseline |"
    yield "|---|---|---|---|---|---|"
    for head in summaries:
        if head.num_other_outputs:
            raise EngineError(f"{head.name}: {head.num_other_outputs} outputs are not the teacher's own")
        shares = " / ".join(f"{depth.marginal:.2f}" for depth in head.depths) or "-"
        over = "1.00x" if head.speed_up is None else f"{head.speed_up.p50:.2f}x"
        drafting = f"{head.stage_ms('draft'):.2f}" if head.depths else "-"
        accepted = f"{head.accepted_length:.2f}" if head.depths else "-"
        yield f"| {head.name} | {accepted} | {shares} | {drafting} | {head.total_tokens_per_s:.1f} | {over} |"


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--teacher", default="demo", show_default=True)
@click.option("--limit", default=6, show_default=True, help="Prompts of demo240.")
@click.option("--tokens", default=64, show_default=True, help="Of each turn at most.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(folders: tuple[Path, ...], teacher: str, limit: int, tokens: int, rounds: int, threads: int) -> None:
    """Compare EAGLE-3 heads in FOLDERS."""
    torch.set_num_threads(threads)
    variants = compared(folders, teacher)
    prompts = sample(load_suite(next(iter(SUITES))), limit)
    plan = Plan(variants, prompts, Settings(choice=variants[0].choice, max_new_tokens=tokens), rounds)
    measures = list(measure(plan, load_variants(variants)))
    for line in rows(summarise(measures, [variant.name for variant in variants])):
        click.echo(line)


if __name__ == "__main__":
    main()
