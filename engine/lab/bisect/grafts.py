"""Grafts: one value of the baseline put into the candidate's step, to see whether what follows heals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from specscope.engine.lab.bisect.floors import relative_error
from specscope.engine.lab.bisect.operations import (
    Captures,
    Operation,
    replaced_outputs,
    run_forward,
)
from specscope.engine.lab.bisect.redraft import Drafted
from specscope.engine.lab.bisect.sides import Alone, Side, moved, prefix_cache
from specscope.engine.lab.rerun.recorded_trees import FedPairs
from specscope.engine.loop.phases import ForwardInputs
from specscope.schemas import DraftSection, Step, TreeSection
from specscope.schemas.bisection import Circumstances, Graft, Measure
from specscope.tracer.compare.floats import scaled_gap
from specscope.tracer.compare.nodes import StepNodes


class Baseline(NamedTuple):
    """What is kept of the baseline's side, all of it on the host."""

    record: Step
    own_tree: TreeSection
    fed: FedPairs
    num_earlier: int  # of these pairs, those that the drafter had before the step
    drafted: Drafted
    given: ForwardInputs
    sees_beyond: bool
    logits: torch.Tensor  # (1, N, V) in the step
    drafting: Captures  # in the step
    in_place: Captures  # in the step; empty where the model's parts are unknown
    alone: Alone
    prefix: torch.Tensor  # (L, 2, G, T, W)
    circumstances: Circumstances
    notes: list[str]


class ForwardGraft(NamedTuple):
    """What of the baseline goes into the candidate's verify forward."""

    inputs: bool = False  # token ids, positions and mask
    prefix: bool = False  # keys and values of the committed tokens
    operations: tuple[Operation, ...] = ()  # their outputs

    def __str__(self) -> str:
        named = [("verify inputs", self.inputs), ("committed prefix", self.prefix)]
        operations = [str(operation) for operation in self.operations]
        if len(operations) > 1:
            operations = [f"all {len(operations)} above their floors"]
        return " + ".join([name for name, is_in in named if is_in] + operations)


def graft_forward(baseline: Baseline, side: Side, graft: ForwardGraft, floor: float) -> Graft:
    """Runs the candidate's verify forward with the graft in, and compares its logits with the baseline's."""
    given = moved(baseline.given, side.teacher) if graft.inputs else side.given
    cache = prefix_cache(side.teacher, baseline.prefix if graft.prefix else side.prefix)
    values = {operation: baseline.alone.captures[operation].gave for operation in graft.operations}
    with replaced_outputs(side.teacher, values):
        logits = run_forward(side.teacher, given, cache)
    wanted = baseline.alone.logits
    before, after = relative_error(wanted, side.alone.logits), relative_error(wanted, logits)
    return graft_of(str(graft), "logits", before=before, after=after, floor=floor)


def graft_of(what: str, measure: Measure, before: float, after: float, floor: float) -> Graft:
    """The graft; where nothing was wrong before it, it heals nothing."""
    heals = before > floor >= after
    return Graft(what=what, measure=measure, before=before, after=after, floor=floor, heals=heals)


def draft_gap(record: Step, own_tree: TreeSection, draft: DraftSection | None, tree: TreeSection) -> float:
    """The largest gap between the scores of the draft of ``record`` and another; infinite where the candidates of the
    two differ, or, of drafters without scores, their trees."""
    ours = StepNodes(record).candidates
    theirs = StepNodes(record.model_copy(update={"draft": draft})).candidates
    if not ours and not theirs:
        return 0.0 if (tree.tokens, tree.parents) == (own_tree.tokens, own_tree.parents) else math.inf
    if ours.keys() != theirs.keys():
        return math.inf
    return max(scaled_gap(score, theirs[key], len(key)) for key, score in ours.items())


def forward_grafts(above: list[Operation], differing: ForwardGraft, *, together: bool) -> Iterator[ForwardGraft]:
    """The grafts that tell something.

    What of the inputs and the prefix is ``differing``, each alone and both; ``together`` only where neither fits
    without the other. Then with them the output of the first operation that is ``above`` its floor, of another one,
    which must not heal, and of all that are.
    """
    if differing.inputs and differing.prefix and not together:
        yield ForwardGraft(inputs=True)
        yield ForwardGraft(prefix=True)
    if differing.inputs or differing.prefix:
        yield differing
    if above:
        for operation in (above[0], _control(above[0])):
            yield differing._replace(operations=(operation,))
    if len(above) > 1:
        yield differing._replace(operations=tuple(above))


def _control(culprit: Operation) -> Operation:
    """One of the same layer, or of the first, where the culprit is in none; and none that hides what the culprit does:
    what the norm after the attention gives goes into the MLP alone."""
    return Operation(culprit.layer or 0, "attention" if culprit.name in ("post-attention norm", "MLP") else "MLP")
