"""What EAGLE-3 heads of one teacher are worth beside each other: acceptance by depth, the cost of drafting, speed.

    python -m benchmarks.heads HEAD... [--teacher demo] [--limit N] [--tokens N] [--rounds N] [--threads N]
        [--clock processor]

A HEAD is a folder, or demo. Every turn is decoded by every head in turn, and by the teacher alone, so that a machine
that drifts slows all alike. The last two columns compare each head with the first one given, prompt by prompt: the
interval is that of 95 % of the ratios where prompts are drawn anew, the same ones for both. One that holds 1.00 tells
no difference from that between prompts.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import click

from specscope.engine.host import num_threads
from specscope.engine.lab.bench.measure import Plan, load_variants, measure
from specscope.engine.lab.bench.suites import SUITES, load_suite, sample
from specscope.engine.lab.bench.summary import VariantSummary, summarise
from specscope.engine.lab.bench.turns import Clock, TurnMeasure
from specscope.engine.lab.bench.variants import Variant
from specscope.engine.settings import DEMO_MODELS, ModelChoice, Settings
from specscope.tracer.errors import EngineError, SpecScopeError, UsageError
from specscope.tracer.tuning.intervals import Cluster, ratio_of

ALONE = "baseline"  # what the teacher without a head is called


def compared(heads: Sequence[str], teacher: str) -> list[Variant]:
    """The teacher alone, and each head by its folder's name.

    Raises:
        UsageError: where two have one name.
    """
    names = ["demo" if head == "demo" else Path(head).name for head in heads]
    for name, count in Counter([ALONE, *names]).items():
        if count > 1:
            raise UsageError(
                f"got the name {name} {count} times, wanted names that differ, and {ALONE} for the teacher alone: give "
                "each head once, and rename a folder where two have one name"
            )
    folders = [DEMO_MODELS / "drafter" if head == "demo" else Path(head) for head in heads]
    choices = [ModelChoice(teacher=teacher, drafter=f"eagle3:{folder}") for folder in folders]
    return [
        Variant(name=ALONE, choice=ModelChoice(teacher=teacher, mode="baseline")),
        *(Variant(name=name, choice=choice) for name, choice in zip(names, choices, strict=True)),
    ]


def rows(summaries: Sequence[VariantSummary], measures: Sequence[TurnMeasure]) -> Iterator[str]:
    """A Markdown table; the second of ``summaries`` is the head that the others are compared with.

    Raises:
        EngineError: where a head's output is not the teacher's own.
    """
    first = summaries[1].name
    yield (
        "| head | accepted length | tokens per step | at least 1 / 2 / 3 / 4 / 5 | ms drafting per step | tokens/s | "
        f"over baseline | accepted length, of {first}'s | tokens/s, of {first}'s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    accepted = [turn for turn in measures if not turn.round]  # the same in every round
    for head in summaries:
        if head.num_other_outputs:
            raise EngineError(f"{head.name}: {head.num_other_outputs} outputs are not the teacher's own")
        shares = " / ".join(f"{depth.marginal:.2f}" for depth in head.depths) or "-"
        over = "1.00x" if head.speed_up is None else f"{head.speed_up.p50:.2f}x"
        drafting = f"{head.stage_ms('draft'):.2f}" if head.depths and head.stages else "-"
        length = f"{head.accepted_length:.2f}" if head.depths else "-"
        lengths = _ratio([_lengths(accepted, name) for name in (head.name, first)]) if head.depths else "-"
        rates = _ratio([_rates(measures, name) for name in (head.name, first)])
        yield (
            f"| {head.name} | {length} | {head.tokens_per_step:.2f} | {shares} | {drafting} | "
            f"{head.total_tokens_per_s:.1f} | {over} | {lengths} | {rates} |"
        )


def _lengths(measures: Sequence[TurnMeasure], name: str) -> list[Cluster]:
    """The accepted lengths of a variant, a prompt at a time."""
    return [
        Cluster(sum(sum(t.accepted_lengths) for t in turns), sum(len(t.accepted_lengths) for t in turns))
        for turns in _by_prompt(measures, name)
    ]


def _rates(measures: Sequence[TurnMeasure], name: str) -> list[Cluster]:
    """Tokens over seconds of a variant, a prompt at a time."""
    return [
        Cluster(sum(t.num_tokens for t in turns), sum(t.duration_ns for t in turns) / 1e9)
        for turns in _by_prompt(measures, name)
    ]


def _by_prompt(measures: Sequence[TurnMeasure], name: str) -> list[list[TurnMeasure]]:
    turns = [turn for turn in measures if turn.variant == name]
    prompts = sorted({turn.prompt_id for turn in turns})
    return [[turn for turn in turns if turn.prompt_id == prompt] for prompt in prompts]


def _ratio(pair: Sequence[Sequence[Cluster]]) -> str:
    """Of the first to the second, with its interval."""
    ratio = ratio_of(*pair)
    return "-" if ratio is None else f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


@click.command()
@click.argument("heads", nargs=-1, required=True)
@click.option("--teacher", default="demo", show_default=True)
@click.option("--limit", default=6, show_default=True, help="Prompts of demo240.")
@click.option("--tokens", default=64, show_default=True, help="Of each turn at most.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option(
    "--clock",
    type=click.Choice(get_args(Clock)),
    default="wall",
    show_default=True,
    help="processor: what others do on the machine is not in it; what drafting takes of a step is not measured then.",
)
def main(
    heads: tuple[str, ...], teacher: str, limit: int, tokens: int, rounds: int, threads: int, clock: Clock
) -> None:
    """Compare EAGLE-3 HEADS: folders, or demo."""
    try:
        variants = compared(heads, teacher)
        prompts = sample(load_suite(next(iter(SUITES))), limit)
        plan = Plan(variants, prompts, Settings(choice=variants[0].choice, max_new_tokens=tokens), rounds, clock)
        with num_threads(threads):
            measures = list(measure(plan, load_variants(variants)))
        for line in rows(summarise(measures, [variant.name for variant in variants]), measures):
            click.echo(line)
    except SpecScopeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
