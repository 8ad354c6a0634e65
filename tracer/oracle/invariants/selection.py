"""Which of the candidates a dynamic tree takes: the best.

A tree may have fewer nodes than its budget allows, unless its writer says that it is not adaptive; those that it has
must be the best. Where two scores are as near as sums in float32 are, either may have come first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from specscope.tracer.files.candidates import Candidate
from specscope.tracer.oracle.invariants.base import Context, tree_is_recorded

CLOSE = 1e-4  # scores that lie nearer, absolutely or in proportion, may stand in either order


class Better(NamedTuple):
    """A candidate that was passed over for a worse one."""

    left_out: Candidate
    kept: Candidate

    def __str__(self) -> str:
        left, kept = self.left_out, self.kept
        return (
            f"candidate {left.number} with score {left.score:.6g} was left out, candidate {kept.number} with "
            f"{kept.score:.6g} was kept"
        )


def passed_over(candidates: list[Candidate], kept: set[int]) -> Better | None:
    """The best of those left out, where it is clearly better than the worst that was kept."""
    chosen = [candidate for candidate in candidates if candidate.number in kept]
    others = [candidate for candidate in candidates if candidate.number not in kept]
    if not chosen or not others:
        return None
    worst, best = min(chosen, key=lambda candidate: candidate.score), max(others, key=lambda candidate: candidate.score)
    clear = best.score - worst.score > CLOSE * max(1.0, abs(best.score))
    return Better(best, worst) if clear and not math.isnan(best.score) else None


def is_dynamic(c: Context) -> bool:
    """Whether the step's tree is a dynamic one that its own drafter grew."""
    return c.policy.kind == "dynamic" and not tree_is_recorded(c.step)
