"""Grafts: one value of the baseline put into the candidate's step, to see whether what follows heals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from specscope.engine.bisect.floors import relative_error
from specscope.engine.bisect.operations import (
    Captures,
    Operation,
    replaced_outputs,
    run_forward,
)
from specscope.engine.bisect.report import Graft
from specscope.engine.bisect.sides import Side, moved, prefix_cache
from specscope.engine.decoding import ForwardInputs
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.forcing import FedPairs
from specscope.engine.recording import draft_section, tree_section
from specscope.schemas import DraftSection, Step, TreeSection
from specscope.tracer.compare.judge import scaled_gap
from specscope.tracer.compare.nodes import StepNodes


class Baseline(NamedTuple):
    """What is kept of the baseline's side, all of it on the host."""

    record: Step
    own_tree: TreeSection
    fed: FedPairs
    given: ForwardInputs
    logits: torch.Tensor  # (1, P, V)
    prefix: torch.Tensor  # (L, 2, G, T, W)
    captures: Captures  # empty where the model's parts are unknown
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
    values = {operation: baseline.captures[operation].gave for operation in graft.operations}
    with replaced_outputs(side.teacher, values):
        logits = run_forward(side.teacher, given, cache)
    before, after = relative_error(baseline.logits, side.logits), relative_error(baseline.logits, logits)
    return Graft(
        what=str(graft), measure="logits", before=before, after=after, floor=floor, heals=after <= floor
    )  # fmt: skip


@torch.inference_mode()
def graft_pairs(baseline: Baseline, side: Side, floor: float) -> Graft:
    """Has the candidate's drafter draft again from the baseline's pairs: features, tokens and positions; those of the
    steps before as well, which it has in its cache."""
    earlier = side.draft.kv_before[0]
    side.lane.trees.wanted = None
    side.lane.trees.begin_turn(0, side.committed_ids, 0)
    if earlier:
        _draft_from(side, baseline.fed, range(earlier), None)
        side.lane.trees.begin_turn(0, side.committed_ids, earlier)
    generators = None
    if side.generator_state is not None and side.lane.session.decoding.rule.draft == "sampled":
        generators = [torch.Generator()]
        generators[0].set_state(side.generator_state)
    draft = _draft_from(side, baseline.fed, range(earlier, len(baseline.fed.tokens)), generators)
    before = draft_gap(baseline, side.record.draft, side.own_tree)
    after = draft_gap(baseline, draft_section(draft, 0), tree_section(draft.tree, 0))
    return Graft(
        what="draft pairs", measure="draft scores", before=before, after=after, floor=floor, heals=after <= floor
    )  # fmt: skip


def _draft_from(side: Side, fed: FedPairs, rows: range, generators: list[torch.Generator] | None) -> Draft:
    """What the candidate's drafter drafts behind these rows of ``fed``."""
    like = side.draft.pairs[0]
    assert fed.features is not None
    features = fed.features[rows.start : rows.stop].to(device=like.features.device, dtype=like.features.dtype)
    tokens = fed.tokens[rows.start : rows.stop]
    pairs = DraftPairs(list(rows), features, torch.tensor(tokens, device=like.tokens.device), tokens)
    return side.lane.trees.propose([pairs], prefix_cache(side.teacher, side.prefix), generators)


def draft_gap(baseline: Baseline, draft: DraftSection | None, tree: TreeSection) -> float:
    """The largest gap between the scores of the baseline's draft and another; infinite where their candidates differ,
    or, of drafters without scores, their trees."""
    ours = StepNodes(baseline.record).candidates
    theirs = StepNodes(baseline.record.model_copy(update={"draft": draft})).candidates
    if not ours and not theirs:
        own = baseline.own_tree
        return 0.0 if (tree.tokens, tree.parents) == (own.tokens, own.parents) else math.inf
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
    what the norm behind the attention gives goes into the MLP alone."""
    return Operation(culprit.layer or 0, "attention" if culprit.name in ("post-attention norm", "MLP") else "MLP")
