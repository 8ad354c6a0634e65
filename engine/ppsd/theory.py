"""What the pipeline's speed comes to on paper. Pure functions; times in any unit, the same one throughout.

N layers, exit after E of them, K stages; a is the share of drafts that hold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one token costs where."""

    stages: list[float]  # of each stage, from an item that it may take to what it sends on
    draft: float  # of the exit head
    hop: float  # from one stage to the next, and from the last one back to the first
    word: float = 0.0  # of the first stage, for what the last one said: to count it, record it and hand it out

    @property
    def sequential(self) -> float:
        """Time per token without drafts: through all stages, and back, and what is done with the word that comes."""
        return sum(self.stages) + len(self.stages) * self.hop + self.word

    @property
    def beat(self) -> float:
        """Time per token while drafts hold, with as many tokens in flight as stages: no faster than the slowest stage,
        and no faster than the round trip shared by those in flight."""
        slowest = max(self.stages[0] + self.draft + self.word, *self.stages[1:])
        return max(slowest, self.sequential / len(self.stages))


def pipeline_time(costs: Costs, acceptance: float) -> float:
    """Expected time per token: a beat where the draft held, a whole passage where it did not."""
    return acceptance * costs.beat + (1 - acceptance) * costs.sequential


def ideal_speedup(num_stages: float, acceptance: float) -> float:
    """The same without hop and head on equal stages: 1 / ((1 - a) + a E / N), with N / E stages."""
    return 1 / ((1 - acceptance) + acceptance / num_stages)


def draft_then_verify_speedup(exit_share: float, acceptance: float, num_drafts: int) -> float:
    """Of drafting ``num_drafts`` tokens by the first layers, then verifying them by all, one after the other:
    ((1 - a^(g + 1)) / (1 - a)) / (g E / N + 1). ``exit_share`` is E / N. Falls below 1 where few drafts hold."""
    tokens = sum(acceptance**number for number in range(num_drafts + 1))
    return tokens / (num_drafts * exit_share + 1)
