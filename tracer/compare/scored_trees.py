"""Trees of which a side does not record what was proposed: whether they differ by a tie of the scores in both."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import NamedTuple

from specscope.schemas.verdict import Contender, Difference
from specscope.tracer.compare.nodes import ROOT, PathKey, StepNodes, key_tokens
from specscope.tracer.compare.roundings import spacing
from specscope.tracer.compare.selection import is_sound
from specscope.tracer.compare.steps import StepPair

Scores = dict[PathKey, float]


class ScoredTrees(NamedTuple):
    """The scores of both trees' drafted nodes, and the spacing of the logits that each of their terms was made of."""

    pair: StepPair
    a: Scores
    b: Scores
    grain: float

    @classmethod
    def of(cls, pair: StepPair) -> ScoredTrees | None:
        """Those of a pair; None where both record what was proposed, or a tree has no scores that rank its nodes."""
        if pair.fixed_shape or (pair.a.candidates and pair.b.candidates):
            return None
        a, b = _scores_of(pair.a), _scores_of(pair.b)
        if a is None or b is None:
            return None
        return cls(pair, a, b, max(spacing(nodes.logit_size(None, 0.0)) for nodes in (pair.a, pair.b)))

    @property
    def are_tied(self) -> bool:
        """Whether noise may have put each node of one tree in the place of one of the other. Nodes that both have must
        be scored alike, and there must be some: else nothing says that both ranked by the same. No tree may have left
        out what is clearly better than its worst, or what its side's own proposals refute."""
        shared = self.a.keys() & self.b.keys()
        return (
            bool(shared)
            and all(self._tied(key, self.a[key] - self.b[key]) for key in shared)
            and self._is_one_distribution()
            and self._fits(self.pair.a, self.a, self.b)
            and self._fits(self.pair.b, self.b, self.a)
        )

    def described(self, differing: Difference) -> Difference:
        """A tie with the first nodes that only one tree has, their scores where a tree has them, and the gap on each
        side from its worst node to the best one that it left out."""
        only_a, only_b = sorted(self.a.keys() - self.b.keys()), sorted(self.b.keys() - self.a.keys())
        if not only_a or not only_b:
            return differing
        swapped = [Contender(node=key_tokens(k), a=self.a.get(k), b=self.b.get(k)) for k in (only_a[0], only_b[0])]
        margins = {
            "margin_a": abs(min(self.a.values()) - max(self.b[key] for key in only_b)),
            "margin_b": abs(min(self.b.values()) - max(self.a[key] for key in only_a)),
            "floor": self._allowance(max(only_a[0], only_b[0], key=len)),
        }
        return differing.model_copy(update={"contenders": swapped, **margins})

    def _allowance(self, key: PathKey) -> float:
        return self.pair.judge.allowance("draft-scores", len(key) * self.grain)

    def _tied(self, key: PathKey, gap: float) -> bool:
        return self.pair.judge.tied("draft-scores", gap, len(key) * self.grain)

    def _is_one_distribution(self) -> bool:
        """Whether the probabilities of siblings, of both trees together, add up to 1 at most, as far as noise tells."""
        both = {ROOT: 0.0, **self.b, **self.a}
        sums: dict[PathKey, float] = defaultdict(float)
        for key, score in both.items():
            if key != ROOT:
                noise = self._allowance(key) + self._allowance(key[:-1])
                sums[key[:-1]] += math.exp(min(0.0, score - both[key[:-1]] - noise))
        return all(total <= 1.0 for total in sums.values())

    def _fits(self, nodes: StepNodes, here: Scores, there: Scores) -> bool:
        """Whether a side may have left out what only the other tree has."""
        worst = min(here.values())
        if nodes.candidates and not is_sound(nodes, self.pair):
            return False
        return all(
            (score <= worst or self._tied(key, score - worst)) and self._may_have_proposed(nodes, key, score)
            for key, score in there.items()
            if key not in here
        )

    def _may_have_proposed(self, nodes: StepNodes, key: PathKey, score: float) -> bool:
        """Whether a node of the other tree fits what a side recorded as proposed: scored as there, or no better than
        the least of its siblings, of which the best alone are recorded."""
        if not nodes.candidates:
            return True
        if key in nodes.candidates:
            return self._tied(key, score - nodes.candidates[key])
        siblings = nodes.proposed_below.get(key[:-1])
        if not siblings:
            return False
        least = min(proposal.score for proposal in siblings.values())
        return score <= least or self._tied(key, score - least)


def _scores_of(nodes: StepNodes) -> Scores | None:
    """The scores of a tree's drafted nodes; None where they are not recorded or not finite, there are none, or several
    are all the same, as of a writer that has none."""
    scores = None if nodes.step.tree is None else nodes.step.tree.scores
    if scores is None or len(scores) != len(nodes.keys) or len(scores) < 2:
        return None
    drafted = {key: score for key, score in zip(nodes.keys, scores, strict=True) if key != ROOT}
    ranks = len(drafted) == 1 or len(set(drafted.values())) > 1
    return drafted if ranks and all(map(math.isfinite, drafted.values())) else None
