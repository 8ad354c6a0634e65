"""``specscope bench``: speed, acceptance and the cost of tracing, as ratios of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table

from specscope.tracer.cli.console import console


@click.command()
@click.option("--prompts", "prompts_file", type=click.Path(path_type=Path), help="Default: the demo's.")
@click.option("--teacher", default="demo", show_default=True)
@click.option("--drafter", default="eagle3", show_default=True)
@click.option("--max-new-tokens", default=64, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--depth", default=5, show_default=True)
@click.option("--top-k", default=4, show_default=True)
@click.option("--budget", default=16, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "npu"]), default="auto", show_default=True)
def bench(
    prompts_file: Path | None,
    teacher: str,
    drafter: str,
    max_new_tokens: int,
    rounds: int,
    depth: int,
    top_k: int,
    budget: int,
    device: str,
) -> None:
    """Decode prompts by the teacher alone, in eager and fused mode, and traced; print speeds and ratios."""
    from specscope.engine.assemble import DEMO_MODELS, ModelChoice
    from specscope.engine.bench import run_bench
    from specscope.engine.prompts import load_prompts
    from specscope.engine.tree_policy import TreePolicy

    prompts = load_prompts(prompts_file or DEMO_MODELS / "prompts.jsonl")
    choice = ModelChoice(teacher, drafter, "fused", "float32", device, TreePolicy("dynamic", depth, top_k, budget))
    with Progress(console=console(), transient=True) as bar:
        task = bar.add_task("decoding")
        results = run_bench(
            choice, prompts, max_new_tokens, rounds, lambda done, of: bar.update(task, completed=done, total=of)
        )
    _print(results, len(prompts), rounds)


def _print(results: dict[str, Any], num_prompts: int, rounds: int) -> None:
    out = console()
    table = Table(box=None, padding=(0, 3, 0, 0))
    for name in ("variant", "tokens/s", "speed over baseline", "accepted length", "tokens per step"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    base = results["baseline"]
    for name, result in results.items():
        accepted = result.accepted_length
        table.add_row(
            name,
            f"{result.tokens_per_s:.1f}",
            f"{1 / result.slowdown(base):.2f}x",
            "-" if name == "baseline" else f"{accepted:.2f}",
            f"{accepted + 1:.2f}",
        )
    out.print(table)
    traced, plain = results["fused, traced"], results["fused"]
    out.print(
        f"tracing at level decisions: time x {traced.slowdown(plain):.3f}; "
        f"{traced.trace_bytes / max(1, traced.num_steps):.0f} bytes a step, file headers included",
        highlight=False,
    )
    out.print(
        f"{num_prompts} prompts x {rounds} rounds; ratios are medians over the same prompt in the same round",
        highlight=False,
    )
