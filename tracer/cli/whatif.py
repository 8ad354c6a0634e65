"""``specscope whatif``: what another budget, depth or top-k would have accepted, from one trace, without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.table import Table

from specscope.schemas import Manifest
from specscope.tracer.cli.console import console, echo_document, echo_words
from specscope.tracer.errors import EXIT_COVERAGE, UsageError
from specscope.tracer.files.profiles import ProfileFile, read_profile
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted
from specscope.tracer.report.fitted import print_table
from specscope.tracer.shapes import Load
from specscope.tracer.tuning.prediction import Prediction, check_same_models, predictor
from specscope.tracer.tuning.summary import RunNumbers, read_numbers, what_if_json
from specscope.tracer.tuning.whatif import TreeSetting, why_not

NOTE = (
    "Exact at every recorded step where all candidates that the setting needs were recorded. A run with that setting"
    " would have stood at other steps, so that its mean may differ by some percent."
)

PRICED = (
    "Times and tokens per second are predicted: accepted lengths by the records, times by the profile, each part of a"
    " step along the line between the shapes that were measured."
)


@click.command(short_help="What another budget or depth would accept")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--budget", "budgets", multiple=True, type=click.IntRange(1), help="Try this budget; may be given again.")
@click.option("--depth", "depths", multiple=True, type=click.IntRange(1), help="Try this depth; may be given again.")
@click.option("--top-k", "top_ks", multiple=True, type=click.IntRange(1), help="Try this top-k; may be given again.")
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Predict tokens per second, by what steps cost in this profile of bench --calibrate.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def whatif(
    *,
    trace: Path,
    budgets: tuple[int, ...],
    depths: tuple[int, ...],
    top_ks: tuple[int, ...],
    profile: Path | None,
    as_json: bool,
) -> None:
    """Print what other trees would have accepted in the run of TRACE, from the candidates that it recorded.

    Without options, budgets, smaller depths and smaller top-k are tried, each with the other two as recorded; with
    them, every combination of what is given. Larger depths and top-k than recorded cannot be told.

    With a profile of the same models, a step of each setting is also priced, and its tokens per second are predicted.

    Exits 4 where nothing can be told of the trace, and says why.
    """
    with TraceReader(trace) as reader:
        can_be_told = why_not(reader.manifest) is None
        settings = combinations(reader.manifest, budgets, depths, top_ks) if can_be_told else []
        run = read_numbers(reader, settings or None)
        prices = None if profile is None or not run.what_if else _priced(profile, reader.manifest, run)
    if as_json:
        document = {"trace": str(trace), **what_if_json(run)}
        echo_document(json.dumps(document if prices is None else _with_prices(document, prices), indent=1))
    elif run.what_if:
        _print_outcomes(run, prices)
    if run.no_what_if is not None:
        echo_words(f"error: nothing can be told of this trace: {run.no_what_if}", err=True)
        sys.exit(EXIT_COVERAGE)


def combinations(
    manifest: Manifest, budgets: tuple[int, ...], depths: tuple[int, ...], top_ks: tuple[int, ...]
) -> list[TreeSetting]:
    """Every combination of what is given, the rest as recorded; empty where nothing is given.

    Raises:
        UsageError: where a depth or a top-k is larger than the recorded one.
    """
    if not (budgets or depths or top_ks):
        return []
    policy = manifest.tree_policy
    for name, given, most in (("--depth", depths, policy.depth), ("--top-k", top_ks, policy.top_k)):
        if max(given, default=0) > most:
            raise UsageError(f"got {name} {max(given)}, wanted at most the recorded {most}: no candidates beyond")
    return [
        TreeSetting(budget, depth, top_k)
        for budget in budgets or (policy.budget,)
        for depth in depths or (policy.depth,)
        for top_k in top_ks or (policy.top_k,)
    ]


class _Prices(NamedTuple):
    """What a profile predicts of each outcome."""

    file: ProfileFile
    load: Load
    predictions: list[Prediction]


def _priced(path: Path, manifest: Manifest, run: RunNumbers) -> _Prices:
    """The outcomes of ``run``, priced at the run's own load.

    Raises:
        UsageError: where there is no profile at ``path``, it is of other models, or the load was not recorded.
    """
    file = read_profile(path)
    check_same_models(file.profile, manifest)
    if run.context is None:
        raise UsageError("got --profile, wanted a trace that records committed lengths (tensors): no load can be told")
    load = Load(manifest.batch_size or 1, run.context)
    predict = predictor(file.profile, load)
    outcomes = [predict(outcome.setting, outcome.accepted_length.value) for outcome in run.what_if]
    return _Prices(file, load, outcomes)


def _with_prices(document: dict[str, Any], prices: _Prices) -> dict[str, Any]:
    outcomes = zip(document["outcomes"], prices.predictions, strict=True)
    return {
        **document,
        "profile": prices.file.digest,
        "load": prices.load._asdict(),
        "outcomes": [{**outcome, "predicted": prediction._asdict()} for outcome, prediction in outcomes],
    }


def _print_outcomes(run: RunNumbers, prices: _Prices | None) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    priced = () if prices is None else ("step ms", "tokens per second")
    for name in ("budget", "depth", "top-k", "accepted length", "95 %", "tokens per step", "exact steps", *priced, ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for number, outcome in enumerate(run.what_if):
        mean = outcome.accepted_length
        table.add_row(
            *(str(value) for value in outcome.setting),
            f"{mean.value:.3f}",
            f"{mean.low:.3f} to {mean.high:.3f}",
            f"{mean.value + 1:.3f}",
            f"{outcome.num_exact} of {mean.size}",
            *(() if prices is None else _price_cells(prices.predictions[number])),
            "as recorded" if number == 0 else "",
        )
    out = console()
    print_table(out, table)
    out.print(NOTE, highlight=False, style="dim")
    if prices is not None:
        load = f"{counted(prices.load.rows, 'row')} of {prices.load.context} tokens"
        out.print(f"{PRICED} The load is the run's own: {load}.", highlight=False, style="dim")


def _price_cells(prediction: Prediction) -> tuple[str, str]:
    return f"{prediction.step_ms:.2f}", f"{prediction.tokens_per_second:.1f}"
