"""Which candidates a tree was made of: whether a selection follows from its scores, and how near the edge it lies."""

from __future__ import annotations

from typing import NamedTuple

from specscope.schemas.verdict import Difference
from specscope.tracer.compare.nodes import ROOT, Proposal, StepNodes
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
