"""What ``specscope run --engine ppsd`` does: launch the ranks, or be one of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from specscope.engine.ppsd.choice import PipelineChoice, check_settings, check_split
from specscope.engine.ranks.launch import RankError, Ranks, is_rank, launch
from specscope.engine.ranks.leaving import ending
from specscope.engine.ranks.lifeline import Lifeline
from specscope.engine.settings import Settings
from specscope.tracer.errors import UsageError
from specscope.tracer.files.mending import end_trace

if TYPE_CHECKING:
    from specscope.engine.ppsd.conductor import Conductor
    from specscope.engine.ppsd.worker import Worker
    from specscope.engine.run.runner import RunRequest

OPTIONS = ("stages", "exit_layer", "window", "stage_timeout", "carrier")


def pipeline_choice(engine: str, options: dict[str, Any]) -> PipelineChoice | None:
    """The pipeline asked for, taking its options out of ``options``; None for the tree engine.

    Raises:
        UsageError: where its options are given without it, or make no pipeline.
    """
    taken = {name: options.pop(name) for name in OPTIONS}
    if engine == "tree":
        given = [f"--{name.replace('_', '-')}" for name, value in taken.items() if value is not None]
        if given:
            raise UsageError(f"got {', '.join(given)} without --engine ppsd, which has stages: add it, or drop them")
        return None
    if taken["stages"] is None:
        raise UsageError("got --engine ppsd without --stages: give the number of processes, such as --stages 2")
    patience = {} if taken["stage_timeout"] is None else {"patience_s": taken["stage_timeout"]}
    named = ("exit_layer", "window", "carrier")
    return PipelineChoice(num_stages=taken["stages"], **{name: taken[name] for name in named}, **patience)


def prefer_early_exit(options: dict[str, Any]) -> None:
    """The pipeline's own drafter, unless the user named one."""
    source = click.get_current_context().get_parameter_source("drafter")
    if source is click.core.ParameterSource.DEFAULT:
        options["drafter"] = "early-exit"


def run_stages(
    settings: Settings,
    choice: PipelineChoice,
    request: Callable[[], RunRequest],
    *,
    trace: Path | None,
    as_json: bool,
) -> None:
    """Launches the ranks, which run this very command, or serves as the one that the environment names.

    Args:
        request: builds the whole request, which loads torch.
        trace: where the first rank writes it.
    """
    if is_rank():
        if int(os.environ["RANK"]):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first rank ends the run, and so the others
        lifeline = Lifeline(int(os.environ["RANK"]))
        ending(lifeline, lambda: _serve(request(), choice, lifeline, as_json=as_json))
        return
    check_settings(settings, choice)
    check_split(settings, choice)
    _spoiler(settings.fault, 0, choice.num_stages)
    _check_means(settings, choice)
    try:
        ranks = Ranks(choice.num_stages, "stage")
        launch(["-m", "specscope", *sys.argv[1:]], ranks, hung_after_s=choice.patience_s)
    except RankError as error:
        # The rank that writes the trace may be the one that was killed, or have been killed before it could end it.
        if trace is not None and error.rank is not None:
            end_trace(trace, str(error))
        raise


def _check_means(settings: Settings, choice: PipelineChoice) -> None:
    """Refuses devices that are not there, and carriers that cannot be had, before every rank does."""
    from specscope.engine.ppsd.rank import find_means

    find_means(settings, choice)


def _spoiler(fault: str | None, rank: int, num_stages: int) -> Callable[[Worker | Conductor], None]:
    """What puts ``fault`` into what a rank serves as; nothing where there is none."""
    if fault is None:
        return lambda _: None
    from specscope.engine.lab.faults.pipeline import RankParts, find_pipeline_fault

    spoil = find_pipeline_fault(fault).spoil
    return lambda serves: spoil(RankParts(rank=rank, num_stages=num_stages, serves=serves))


def _serve(request: RunRequest, choice: PipelineChoice, lifeline: Lifeline, *, as_json: bool) -> None:
    from specscope.engine.ppsd.rank import exchange_facts, joined, load_rank, serve

    recording = request.trace is not None
    settings = request.settings
    spoil = _spoiler(settings.fault, lifeline.rank, choice.num_stages)
    loaded = load_rank(settings, choice, lifeline.rank, recording=recording)
    with joined(lifeline, choice.num_stages, loaded.means):
        facts = exchange_facts(loaded.stage, lifeline.rank, loaded.means)
        if lifeline.rank:
            serve(loaded, settings, lifeline, num_stages=choice.num_stages, recording=recording, spoil=spoil)
            return
        from specscope.engine.cli.ppsd_first import conduct

        conduct(request, choice, loaded, facts=facts, lifeline=lifeline, spoil=spoil, as_json=as_json)
