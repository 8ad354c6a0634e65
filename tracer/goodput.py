"""How large a draft tree pays: the tokens that it can be expected to give, over the time that it is predicted to take.

A drafted node is accepted about as often as the drafter's probabilities along its path say, which is exp of its score.
So a step that verifies the nodes S emits 1 + sum over S of exp(score) tokens: the bonus token, and one for each node
that is accepted (the objective of OPT-Tree, Wang et al. 2024, and of Sequoia, Chen et al. 2024). Its time follows from
``StepCosts``. Engine, oracle and comparison all decide by what stands here.

Masses are sums of exp(score), over all rows of a batch together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from specscope.schemas import StepCosts


class TreeSize(NamedTuple):
    """A size of the trees of a step, the same in each row, and what is expected of it."""

    num_nodes: int  # drafted nodes of each row
    tokens: float  # expected, of all rows together
    goodput: float  # tokens per ms


class LevelMass(NamedTuple):
    """How much of what is expected lies in the last level that was proposed."""

    fed: float  # of the nodes that proposed the level; the roots count 1 each
    proposed: float  # of all that they proposed
    next_fed: float  # of those among the proposals that would be fed next


def mass_of(scores: Iterable[float]) -> float:
    """How many of the nodes with these scores can be expected to be accepted. A score above 0 is none."""
    return math.fsum(math.exp(min(score, 0.0)) for score in scores)


def goodput_of(costs: StepCosts, scores: Sequence[Sequence[float]], num_levels: int, num_nodes: int) -> TreeSize:
    """What is expected of the best ``num_nodes`` of each row's ``scores``, which come best first."""
    tokens = sum(1.0 + mass_of(row[:num_nodes]) for row in scores)
    return TreeSize(num_nodes, tokens, tokens / costs.step_ms(num_levels, len(scores) * (num_nodes + 1)))


def best_size(costs: StepCosts, scores: Sequence[Sequence[float]], num_levels: int, most: int) -> TreeSize:
    """The size of the best goodput, ``most`` nodes at most and as many as every row has; of equal ones the smallest.

    Args:
        costs: of a step.
        scores: of each row's candidates, best first.
        num_levels: levels that were proposed.
        most: nodes of a tree.
    """
    tokens = float(len(scores))
    best = TreeSize(0, tokens, tokens / costs.step_ms(num_levels, len(scores)))
    for num_nodes, column in enumerate(zip(*scores, strict=False), 1):
        if num_nodes > most:
            break
        tokens += mass_of(column)
        goodput = tokens / costs.step_ms(num_levels, len(scores) * (num_nodes + 1))
        if goodput > best.goodput:
            best = TreeSize(num_nodes, tokens, goodput)
    return best


def with_another_level(costs: StepCosts, size: TreeSize, num_levels: int, mass: LevelMass, num_rows: int = 1) -> float:
    """The goodput that is predicted for one level more, which adds one node to each tree: its nodes are expected to
    hold the same share of what is fed as the last level's did. It pays where this is more than that of ``size``."""
    share = min(1.0, mass.proposed / mass.fed) if mass.fed > 0 else 0.0
    gained = min(float(num_rows), mass.next_fed) * share
    return (size.tokens + gained) / costs.step_ms(num_levels + 1, num_rows * (size.num_nodes + 2))
