"""How far noise in the teacher's logits carries what a child's threshold is made of.

A threshold is not a probability: after rejected siblings it is a share of what is left of the teacher's distribution,
and small remainders make large shares. So noise counts by how much is left. The recorded trials say how little that can
be: a child that was rejected with threshold t under draft probability q leaves q (1 - t) at least, because so much of q
is more than the teacher's (Leviathan et al. 2023, the residual of speculative sampling).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from specscope.schemas import Trial

#: Errors add up along sums and quotients; so many times the first-order bound is still noise.
SLACK = 4.0
#: An entropy H moves by a share of H + 1 where its probabilities move by it; over a million tokens that is below 15.
LARGEST_ENTROPY = 16.0


class Tried(NamedTuple):
    """A child that was tried, after others: its elder siblings, or under rule block the chain before it."""

    rule: str
    before: Sequence[Trial]
    trial: Trial

    def threshold_noise(self, share: float) -> float:
        """How much of the threshold may be noise, where that is ``share`` of every probability."""
        if self.rule == "typical":
            return SLACK * LARGEST_ENTROPY * share * self.trial.threshold
        if self.rule == "block":
            return self.mass_noise(share) / max(self._left_of_block(), share)
        trial, steps = self.trial, len(self.before) + 1
        left = math.prod(elder.draft_prob * (1 - elder.threshold) for elder in self.before)
        if left <= 0 or trial.draft_prob <= 0:
            return math.inf
        if self._is_sure(SLACK * share):
            return 0.0
        if not self.before:
            return SLACK * share * trial.threshold
        weighed = (trial.target_prob + trial.draft_prob) / trial.draft_prob + trial.threshold
        return SLACK * share * steps * weighed / left

    def _is_sure(self, share: float) -> bool:
        """Whether the child is accepted for sure, however the probabilities lie within ``share`` of themselves: what of
        the teacher's is left of its token is then more than the drafter's, which no remainder makes less."""
        drawn, room = self.trial.draft_prob, 1.0
        remains = self.trial.target_prob * (1 - share)
        for elder in self.before:
            remains -= (1 + share) * drawn / room
            room -= elder.draft_prob
            if room <= 0:
                return False
        return remains >= (1 + share) * drawn / room

    def mass_noise(self, share: float) -> float:
        """How much of a block's residual mass may be noise: each slot above adds its own."""
        return SLACK * share * (len(self.before) + 2)

    def _left_of_block(self) -> float:
        """What a block's threshold is a share of: S + 1 - r, or 1 at the end of the chain."""
        if self.trial.residual_mass is None:
            return 1.0
        ratio = 1.0
        for trial in (*self.before, self.trial):
            ratio = min(1.0, ratio * trial.target_prob / trial.draft_prob) if trial.draft_prob > 0 else 0.0
        return self.trial.residual_mass + 1 - ratio
