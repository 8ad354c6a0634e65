"""Sizes of trees that follow from costs: whether two sides parted where noise may have decided.

What is compared are logarithms of goodputs: noise that moves every score by d moves those by d at most.
"""

from __future__ import annotations

import math

from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.steps import StepPair
from specscope.tracer.goodput import goodput_of
from specscope.tracer.oracle.invariants.sizing import best_first, by_level, level_decision


def depth_is_tied(pair: StepPair) -> bool:
    """Whether noise may have decided on both sides if another level was grown, where one has fewer levels."""
    policy = pair.sized
    if policy is None or policy.costs is None:
        return False
    levels = [by_level(nodes.numbered) for nodes in (pair.a, pair.b)]
    fewest = min(map(len, levels))
    if not fewest:
        return False
    for nodes, grown in zip((pair.a, pair.b), levels, strict=True):
        size, promised = level_decision(policy.costs, grown[:fewest], most=policy.budget, top_k=policy.top_k)
        if not _tied(pair, nodes, promised, size.goodput):
            return False
    return True


def size_is_tied(pair: StepPair) -> bool:
    """Whether each side's size promises, on both sides, as much as the other's, as far as noise lets one tell."""
    costs = None if pair.sized is None else pair.sized.costs
    if costs is None:
        return False
    sizes = [len(nodes.keys) - 1 for nodes in (pair.a, pair.b)]
    for nodes in (pair.a, pair.b):
        levels = by_level(nodes.numbered)
        scores = [best_first(candidate.score for candidate in nodes.numbered)]
        first, second = (goodput_of(costs, scores, num_levels=len(levels), num_nodes=size).goodput for size in sizes)
        if not _tied(pair, nodes, first, second):
            return False
    return True


def _tied(pair: StepPair, nodes: StepNodes, first: float, second: float) -> bool:
    grain = max((proposal.grain for proposal in nodes.proposals.values()), default=0.0)
    return pair.judge.tied("draft-scores", math.log(first / second), grain)
