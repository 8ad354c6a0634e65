"""``specscope bench --suite ppsd``: the pipeline's own benchmark."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.core import ParameterSource

from specscope.tracer.errors import UsageError

PIPELINE = "ppsd"
#: What may be said of the pipeline's measurements; benchmarks.ppsd takes more.
PIPELINE_OPTIONS = frozenset({"suite", "limit", "max_new_tokens", "rounds", "plots", "keep", "overwrite"})
PIPELINE_PROMPTS = 4


def measure_pipeline(rounds: int, options: dict[str, Any]) -> None:
    """Measures by the options of ``bench``, whose files were checked.

    Raises:
        UsageError: for an option that only trees have, or fewer than two tokens.
    """
    from specscope.engine.lab.bench.pipeline.plan import PipelinePlan
    from specscope.engine.lab.bench.pipeline.ranks import run_plan

    if more := given_options() - PIPELINE_OPTIONS:
        raise UsageError(
            f"got {listed(more)} with --suite {PIPELINE}, which takes --limit, --max-new-tokens, --rounds, --plots, "
            "--keep, --overwrite: drop it or run python -m benchmarks.ppsd from the source tree, which has --stages "
            "and more"
        )
    if options["max_new_tokens"] < 2:
        raise UsageError(
            f"got {options['max_new_tokens']} new tokens, wanted at least 2: the first one comes of the prompt, and "
            "what is measured is the time from token to token"
        )
    plan = PipelinePlan(
        num_tokens=options["max_new_tokens"],
        num_prompts=options["limit"] or PIPELINE_PROMPTS,
        num_rounds=rounds,
        plot=options["plots"],
        keep=options["keep"],
    )
    run_plan(plan, ["-m", "specscope", *sys.argv[1:]])


def given_options() -> set[str]:
    """The parameters of the command that runs which were not left at their defaults."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}


def listed(names: set[str]) -> str:
    """Parameters as options, in the order of the alphabet."""
    return ", ".join(sorted(f"--{name.replace('_', '-')}" for name in names))
