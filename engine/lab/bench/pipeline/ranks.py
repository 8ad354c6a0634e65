"""Launches the ranks of a pipeline's benchmark, or is one of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from specscope.engine.lab.bench.pipeline.plan import PATIENCE_S, PipelinePlan
from specscope.engine.ppsd.choice import check_split
from specscope.engine.ranks.launch import Ranks, is_rank, launch
from specscope.engine.ranks.leaving import ending
from specscope.engine.ranks.lifeline import Lifeline


def run_plan(plan: PipelinePlan, command: Sequence[str]) -> None:
    """Measures and prints.

    Args:
        command: arguments of this interpreter that come to this very call in each rank.

    Raises:
        UsageError: where the stages do not fit.
        RankError: naming the rank that ended first, and why.
    """
    if not is_rank():
        check_split(plan.settings, plan.choice)
        launch(command, Ranks(plan.num_stages, "stage"), hung_after_s=PATIENCE_S)
        return
    lifeline = Lifeline(int(os.environ["RANK"]))
    ending(lifeline, lambda: _serve(plan, lifeline))


def _serve(plan: PipelinePlan, lifeline: Lifeline) -> None:
    import torch

    from specscope.engine.lab.bench.pipeline.measure import measure
    from specscope.engine.lab.bench.pipeline.report import report
    from specscope.engine.ppsd.rank import exchange_facts, joined, load_rank, serve

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[lifeline.rank % len(cores)]})
    torch.set_num_threads(1)  # of which a core runs no more at a time
    loaded = load_rank(plan.settings, plan.choice, lifeline.rank, recording=True)
    with joined(lifeline, plan.num_stages, loaded.means):
        exchange_facts(loaded.stage, lifeline.rank, loaded.means)
        if lifeline.rank:
            serve(loaded, plan.settings, lifeline, num_stages=plan.num_stages, recording=True, spoil=lambda _: None)
        else:
            report(plan, measure(plan, loaded))
