"""Faults of what ends a turn and of what is counted, F29 and F30."""

from __future__ import annotations

from collections.abc import Callable

from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget
from specscope.engine.loop.phases import RowAcceptance
from specscope.engine.loop.stopping import StopDecision, StopWatch


def _changing_stops(
    change: Callable[[StopWatch, StopDecision], StopDecision],
) -> Callable[[FaultTarget], FaultTarget]:
    def inject(target: FaultTarget) -> FaultTarget:
        honest = target.phases.stop
        return target.with_phases(stop=lambda watch, emitted: change(watch, honest(watch, emitted)))

    return inject


def _not_cut(watch: StopWatch, decision: StopDecision) -> StopDecision:
    watch.output_ids += decision.emitted[decision.kept :]
    return decision._replace(kept=len(decision.emitted))


def _one_early(watch: StopWatch, decision: StopDecision) -> StopDecision:
    if decision.reason != "length" or decision.kept < 2:
        return decision
    watch.output_ids.pop()
    return decision._replace(kept=decision.kept - 1)


def _bonus_counted(target: FaultTarget) -> FaultTarget:
    honest = target.phases.tally

    def tally(accepted: RowAcceptance) -> int:
        return honest(accepted) + 1

    return target.with_phases(tally=tally)


TURN_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F29.no-cut",
        says="a block is not cut after the token that ends the turn",
        expect=Expectation(places=(("stop", "kept"),), invariant="turn.end"),
        inject=_changing_stops(_not_cut),
    ),
    Fault(
        id="F29.early",
        says="the length is reached one token early",
        expect=Expectation(places=(("stop", "kept"),), invariant="turn.end"),
        inject=_changing_stops(_one_early),
    ),
    Fault(
        id="F30",
        says="the bonus token is counted as accepted",
        expect=Expectation("violation", invariant="turn.metrics"),
        inject=_bonus_counted,
    ),
)
