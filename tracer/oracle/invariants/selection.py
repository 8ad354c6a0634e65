"""Which of the candidates a dynamic tree takes: the best.

A tree may have fewer nodes than its budget allows, unless its writer says that it is not adaptive; those that it has
must be the best. Where two scores are as near as sums in float32 are, either may have come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from specscope.tracer.oracle.invariants.base import Context, tree_is_recorded

CLOSE = 1e-4  # scores that lie nearer, absolutely or in proportion, may stand in either order


class Better(NamedTuple):
    """A candidate that was passed over for a worse one."""

    left_out: int  # numbers of candidates
    kept: int
    scores: list[float]  # of all candidates

    def __str__(self) -> str:
        return (
            f"candidate {self.left_out} with score {self.scores[self.left_out]:.6g} was left out, candidate "
            f"{self.kept} with {self.scores[self.kept]:.6g} was kept"
        )


def passed_over(scores: list[float], candidates: Sequence[int], kept: set[int]) -> Better | None:
    """Of ``candidates``, by number, the best that was left out, where it is clearly better than the worst that was
    kept; ``scores`` are those of all candidates."""
    chosen = [number for number in candidates if number in kept]
    others = [number for number in candidates if number not in kept]
    if not chosen or not others:
        return None
    worst, best = min(chosen, key=scores.__getitem__), max(others, key=scores.__getitem__)
    clear = scores[best] - scores[worst] > CLOSE * max(1.0, abs(scores[best]))
    return Better(best, worst, scores) if clear and not math.isnan(scores[best]) else None


def is_dynamic(c: Context) -> bool:
    """Whether the step's tree is a dynamic one that its own drafter grew."""
    return c.policy.kind == "dynamic" and not tree_is_recorded(c.step)
