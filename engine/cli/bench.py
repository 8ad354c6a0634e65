"""``specscope bench``: speed, acceptance, and what settings and tracing cost, as ratios of one run."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table

from specscope.engine.cli.choices import build_choice, model_options, rule_options, tree_options
from specscope.tracer.cli.console import console


@click.command()
@click.option("--prompts", "prompts_file", type=click.Path(path_type=Path), help="Default: the demo's.")
@click.option(
    "--compare",
    type=click.Choice(["modes", "analysis", "cache-strategies", "trees", "drafters", "batch"]),
    default="modes",
    show_default=True,
    help="analysis: baseline and speculation, both on the eager path.",
)
@model_options
@tree_options
@rule_options
@click.option("--max-new-tokens", default=64, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def bench(prompts_file: Path | None, compare: str, max_new_tokens: int, rounds: int, **options: Any) -> None:
    """Decode the same prompts in several ways, in turn; print speeds and ratios."""
    from specscope.engine.assemble import DEMO_MODELS
    from specscope.engine.bench import COMPARISONS, run_bench
    from specscope.engine.prompts import load_prompts

    prompts = load_prompts(prompts_file or DEMO_MODELS / "prompts.jsonl")
    variants = COMPARISONS[compare](build_choice(**options))
    with Progress(console=console(), transient=True) as bar:
        task = bar.add_task("decoding")
        results = run_bench(
            variants, prompts, max_new_tokens, rounds, lambda done, of: bar.update(task, completed=done, total=of)
        )
    _print(results, variants[0].name, compare)
    console().print(
        f"{len(prompts)} prompts x {rounds} rounds; ratios are medians over the same prompts in the same round",
        highlight=False,
    )


def _print(results: dict[str, Any], first: str, compare: str) -> None:
    out, base = console(), results[first]
    table = Table(box=None, padding=(0, 3, 0, 0))
    columns = ["variant", "tokens/s", f"speed over {first}", "accepted length", "tokens per step"]
    commits = compare == "cache-strategies"
    for name in [*columns, *["ms branch + commit"] * commits]:
        table.add_column(name, justify="left" if name == "variant" else "right")
    for name, result in results.items():
        accepted = result.accepted_length
        row = [
            name,
            f"{result.tokens_per_s:.1f}",
            f"{1 / result.slowdown(base):.2f}x",
            "-" if name.startswith("baseline") else f"{accepted:.2f}",
            f"{accepted + 1:.2f}",
        ]
        table.add_row(*row, *[f"{mean(result.commit_ns) / 1e6:.3f}"] * commits)
    out.print(table)
    if "fused, traced" in results:
        traced, plain = results["fused, traced"], results["fused"]
        out.print(
            f"tracing at level decisions: time x {traced.slowdown(plain):.3f}; "
            f"{traced.trace_bytes / max(1, traced.num_steps):.0f} bytes a step, file headers included",
            highlight=False,
        )
