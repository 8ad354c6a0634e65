"""Whether trees that are sized by their costs have the size that pays.

Decided anew from the recorded candidates and the manifest's costs. Where two sizes promise nearly as much, either may
have been chosen. In a batch all rows are sized together, which no row's record can show.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence

from specscope.schemas import StepCosts
from specscope.tracer.files.candidates import Candidate
from specscope.tracer.goodput import LevelMass, TreeSize, best_size, goodput_of, mass_of, with_another_level
from specscope.tracer.oracle.invariants.base import Context, present
from specscope.tracer.oracle.invariants.selection import CLOSE, is_dynamic


def is_sized(c: Context) -> bool:
    """Whether the step's tree was sized by its costs, by itself."""
    return is_dynamic(c) and c.policy.costs is not None and (c.manifest.batch_size or 1) == 1


def size_pays(c: Context) -> str | None:
    """What is wrong with the number of levels or nodes; None where they promise the most."""
    costs, policy = present(c.policy.costs), c.policy
    levels = by_level(c.candidates)
    for number in range(1, len(levels) + 1):
        grew = number < len(levels)
        if not grew and number >= policy.depth:
            continue
        size, promised = level_decision(costs, levels[:number], most=policy.budget, top_k=policy.top_k)
        if (promised < size.goodput * (1 - CLOSE)) if grew else (promised > size.goodput * (1 + CLOSE)):
            action = "was grown" if grew else "was not grown"
            return (
                f"level {number + 1} {action}: with it {promised:.4g} tokens per ms were promised, without it "
                f"{size.goodput:.4g}"
            )
    scores = best_first(candidate.score for level in levels for candidate in level)
    num_nodes = len(present(c.step.tree).tokens) - 1
    kept = goodput_of(costs, [scores], num_levels=len(levels), num_nodes=num_nodes)
    best = best_size(costs, [scores], num_levels=len(levels), most=policy.budget)
    if best.goodput > kept.goodput * (1 + CLOSE):
        return (
            f"{num_nodes} nodes promise {kept.goodput:.4g} tokens per ms; {best.num_nodes} promise {best.goodput:.4g}"
        )
    return None


def level_decision(
    costs: StepCosts, levels: Sequence[Sequence[Candidate]], *, most: int, top_k: int
) -> tuple[TreeSize, float]:
    """The best size of what ``levels`` hold, and the goodput that is promised with one level more."""
    size = best_size(costs, [best_first(c.score for level in levels for c in level)], num_levels=len(levels), most=most)
    last = levels[-1]
    parents = {c.parent_number: 0.0 if c.parent is None else c.parent.score for c in last}
    mass = LevelMass(
        fed=mass_of(parents.values()),
        proposed=mass_of(c.score for c in last),
        next_fed=mass_of(heapq.nlargest(top_k, (c.score for c in last))),
    )
    return size, with_another_level(costs, size, len(levels), mass)


def best_first(scores: Iterable[float]) -> list[float]:
    """Those that are numbers, the highest first."""
    return sorted((score for score in scores if not math.isnan(score)), reverse=True)


def by_level(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """The candidates of each level, in order."""
    levels: list[list[Candidate]] = []
    for candidate in candidates:
        while len(levels) <= candidate.level:
            levels.append([])
        levels[candidate.level].append(candidate)
    return levels
