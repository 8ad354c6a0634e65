"""Which of the candidates a dynamic tree takes: the best.

A tree may have fewer nodes than its budget allows, unless its writer says that it is not adaptive; those that it has
must be the best. Where two scores are as near as sums in float32 are, either may have come first; so may they, of an
engine that drafts in half precision, where they are as near as such sums are.
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


def are_near(c: Context, a: float, b: float, *, additions: int) -> bool:
    """Whether rounding may have put two scores in either order, where so many ``additions`` made both of them."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a == b
    off, size = abs(a - b), max(1.0, abs(a), abs(b))
    digits = c.half_digits
    half_a_rounding = 0.0 if digits is None else math.ldexp(0.5, math.frexp(size)[1] - digits)
    return off <= CLOSE * size or off <= additions * half_a_rounding


def passed_over(c: Context, candidates: Sequence[int], kept: set[int]) -> Better | None:
    """Of ``candidates``, by number, the best that was left out, where it is clearly better than the worst that was
    kept."""
    scores = c.columns.scores
    chosen = [number for number in candidates if number in kept]
    if not chosen:
        return None
    worst = min(chosen, key=scores.__getitem__)
    least = scores[worst]
    if not any(scores[number] > least and number not in kept for number in candidates):
        return None  # as nearly always
    others = [number for number in candidates if number not in kept]
    best = max(others, key=scores.__getitem__)
    if not scores[best] > scores[worst]:
        return None
    additions = _level_of(c, best) + _level_of(c, worst)
    return None if are_near(c, scores[best], scores[worst], additions=additions) else Better(best, worst, scores)


def _level_of(c: Context, candidate: int) -> int:
    """From 0, which is how many additions made its score."""
    return next(number for number, level in enumerate(c.columns.levels) if candidate in level)


def is_dynamic(c: Context) -> bool:
    """Whether the step's tree is a dynamic one that its own drafter grew."""
    return c.policy.kind == "dynamic" and not tree_is_recorded(c.step)
