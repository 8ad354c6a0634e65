"""Invariants of pipelined runs: of single tokens, and of whole turns. What they follow stands in ``flow``."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, present
from specscope.tracer.oracle.invariants.flow import (
    acceptance_problem,
    alone_problem,
    custody_problem,
    cuts_problem,
    dropped_problem,
    epoch_problem,
    is_pipelined,
    item_before,
    overlap_problem,
    position_problem,
)
from specscope.tracer.oracle.invariants.turn import TurnTally


def _has_flow(t: TurnTally) -> bool:
    return t.flow is not None


def _is_on_devices(t: TurnTally) -> bool:
    return t.flow is not None and t.flow.on_devices


PIPELINE: tuple[Invariant[Context], ...] = (
    Invariant(
        id="pipeline.acceptance",
        statement="a draft is accepted where it is the verified token, and only there",
        check=acceptance_problem,
        needs=("pipeline", "accept"),
        applies=is_pipelined,
        phase="accept",
    ),
    Invariant(
        id="pipeline.epoch",
        statement="a token is of the epoch that the last refuted draft began: no older work counts",
        check=epoch_problem,
        needs=("pipeline",),
        applies=lambda c: is_pipelined(c) and item_before(c) is not None,
        phase="accept",
    ),
    Invariant(
        id="pipeline.position",
        statement="tokens are verified one position after another",
        check=position_problem,
        needs=("pipeline",),
        applies=is_pipelined,
        phase="accept",
    ),
)
#: On whole turns.
PIPELINE_TURNS: tuple[Invariant[TurnTally], ...] = (
    Invariant(
        id="pipeline.custody",
        statement="a verified item passed every stage exactly once, in order",
        check=lambda t: custody_problem(present(t.flow)),
        applies=_has_flow,
        phase="verify",
    ),
    Invariant(
        id="pipeline.cuts",
        statement="a stage cuts its keys and values to what its next item follows, and at no other time",
        check=lambda t: cuts_problem(present(t.flow)),
        applies=_has_flow,
        phase="commit",
    ),
    Invariant(
        id="pipeline.dropped",
        statement="what a stage dropped it did not run, and it does not count",
        check=lambda t: dropped_problem(present(t.flow)),
        applies=_has_flow,
        phase="commit",
    ),
    Invariant(
        id="pipeline.one-at-a-time",
        statement="a stage works on one item at a time",
        check=lambda t: alone_problem(present(t.flow)),
        applies=_has_flow,
        phase="verify",
    ),
    Invariant(
        id="pipeline.overlap",
        statement="on separate devices, where most drafts hold, two stages work on different positions at once",
        check=lambda t: overlap_problem(present(t.flow)),
        applies=_is_on_devices,
        phase="verify",
    ),
)
