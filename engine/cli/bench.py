"""``specscope bench``: speed, acceptance, and what settings and tracing cost, as ratios of one run."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, quantiles
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from specscope.engine.cli.choices import CHOICE_SECTIONS, build_choice, model_options, rule_options, tree_options
from specscope.tracer.cli.console import console, progress
from specscope.tracer.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from specscope.engine.lab.bench import Variant


SECTIONS = {"Comparison": ("prompts_file", "compare", "overhead", "max_new_tokens", "rounds"), **CHOICE_SECTIONS}


@click.command(short_help="Cost of modes, trees and tracing, as ratios", cls=SectionedCommand, sections=SECTIONS)
@click.option("--prompts", "prompts_file", type=click.Path(path_type=Path), help="Default: the demo's.")
@click.option(
    "--compare",
    type=click.Choice(["modes", "analysis", "cache-strategies", "trees", "drafters", "batch"]),
    default="modes",
    show_default=True,
    help="analysis: baseline and speculation, both on the eager path.",
)
@click.option("--overhead", is_flag=True, help="Instead: what tracing costs, at each level, in both modes.")
@model_options
@tree_options
@rule_options
@click.option("--max-new-tokens", default=64, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def bench(
    prompts_file: Path | None, compare: str, overhead: bool, max_new_tokens: int, rounds: int, **options: Any
) -> None:
    """Decode the same prompts in several ways, in turn; print speeds and ratios."""
    from specscope.engine.lab.bench import COMPARISONS, num_runs, run_bench
    from specscope.engine.load.models import DEMO_MODELS
    from specscope.engine.run.prompts import load_prompts

    prompts = load_prompts(prompts_file or DEMO_MODELS / "prompts.jsonl")
    variants = COMPARISONS["overhead" if overhead else compare](build_choice(**options))
    with progress("decoding", num_runs(variants, prompts, rounds), "runs", shown=True) as advance:
        results = run_bench(variants, prompts, max_new_tokens, rounds, advance)
    if overhead:
        _print_overhead(results, variants)
    else:
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
            f"{traced.trace_bytes / max(1, traced.num_steps):.0f} bytes per step, file headers included",
            highlight=False,
        )


def _print_overhead(results: dict[str, Any], variants: list[Variant]) -> None:
    """Each traced variant beside the same one untraced, which was decoded in the same rounds."""
    table = Table(box=None, padding=(0, 3, 0, 0))
    for name in ("variant", "tokens/s", "time over untraced", "middle half", "bytes per step"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for variant in variants:
        result, row = results[variant.name], ["-"] * 3
        if variant.traced is not None:
            plain = results[variant.name.partition(",")[0]]
            ratios = result.slowdowns(plain)
            low, _, high = quantiles(ratios, method="inclusive") if len(ratios) > 1 else ratios * 3
            written = result.trace_bytes / max(1, result.num_steps)
            row = [f"{result.slowdown(plain):.3f}x", f"{low:.3f} to {high:.3f}", f"{written:.0f}"]
        table.add_row(variant.name, f"{result.tokens_per_s:.1f}", *row)
    console().print(table)
