"""Which candidates a tree was made of: whether a selection follows from its scores, and how near the edge it lies."""

from __future__ import annotations

from typing import NamedTuple

from specscope.schemas.verdict import Difference
from specscope.tracer.compare.nodes import ROOT, PathKey, Proposal, StepNodes
from specscope.tracer.compare.roundings import spacing
from specscope.tracer.compare.steps import StepPair


class _Edge(NamedTuple):
    """Where a tree ends and what was left out begins, by scores."""

    worst: float  # score of what was kept; minus infinity where none is known
    coarsest: float  # grain of what was kept at that score
    left_out: list[Proposal]


def is_sound(nodes: StepNodes, pair: StepPair) -> bool:
    """Whether every node is a candidate, and no candidate left out is clearly better than the worst one kept."""
    if not set(nodes.keys) - {ROOT} - nodes.outside_levels <= nodes.proposals.keys():
        return False
    edge = _edge_of(nodes)
    return all(
        other.score <= edge.worst
        or pair.judge.tied("draft-scores", other.score - edge.worst, max(other.grain, edge.coarsest))
        for other in edge.left_out
    )


def tied_by_scores(pair: StepPair) -> bool:
    """The same of two trees where a side does not record what was proposed, by the scores that both trees carry: nodes
    that both have are scored alike, and no tree left a node of the other one out that is clearly better than its worst.
    """
    if pair.fixed_shape or (pair.a.candidates and pair.b.candidates):
        return False
    ours, theirs = _tree_scores(pair.a), _tree_scores(pair.b)
    if ours is None or theirs is None:
        return False
    grain = max(spacing(nodes.logit_size(None, 0.0)) for nodes in (pair.a, pair.b))

    def tied(key: PathKey, gap: float) -> bool:
        return pair.judge.tied("draft-scores", gap, len(key) * grain)

    alike = all(tied(key, ours[key] - theirs[key]) for key in ours.keys() & theirs.keys())
    return alike and all(
        score <= worst or tied(key, score - worst)
        for here, there in ((ours, theirs), (theirs, ours))
        for worst in [min(here.values())]
        for key, score in there.items()
        if key not in here
    )


def _tree_scores(nodes: StepNodes) -> dict[PathKey, float] | None:
    """The scores of a tree's drafted nodes; None where they are not recorded, or there is none."""
    scores = None if nodes.step.tree is None else nodes.step.tree.scores
    if scores is None or len(scores) != len(nodes.keys) or len(scores) < 2:
        return None
    return {key: score for key, score in zip(nodes.keys, scores, strict=True) if key != ROOT}


def with_margins(differing: Difference, pair: StepPair) -> Difference:
    """A difference of trees with the gap, on each side, from the worst score kept to the best one left out, and the
    noise floor of such a score; as it is where a side leaves nothing out."""
    edges = [_edge_of(nodes) for nodes in (pair.a, pair.b)]
    if any(edge.worst == float("-inf") or not edge.left_out for edge in edges):
        return differing
    best = [max(edge.left_out, key=lambda proposal: proposal.score) for edge in edges]
    margins = [abs(edge.worst - other.score) for edge, other in zip(edges, best, strict=True)]
    grain = max(*(other.grain for other in best), *(edge.coarsest for edge in edges))
    floor = pair.judge.allowance("draft-scores", grain)
    return differing.model_copy(update={"margin_a": margins[0], "margin_b": margins[1], "floor": floor})


def _edge_of(nodes: StepNodes) -> _Edge:
    proposals, kept = nodes.proposals, set(nodes.keys) - {ROOT}
    scores = {key: score for key in kept if (score := nodes.kept_score(key)) is not None}
    worst = min(scores.values(), default=float("-inf"))
    lowest = [key for key, score in scores.items() if score == worst and key in proposals]
    coarsest = max((proposals[key].grain for key in lowest), default=0.0)
    return _Edge(worst, coarsest, [proposal for key, proposal in proposals.items() if key not in kept])
