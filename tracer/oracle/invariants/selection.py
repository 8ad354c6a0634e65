"""Which of the candidates a dynamic tree takes: the best.

A tree may have fewer nodes than its budget allows, unless its writer says that it is not adaptive; those that it has
must be the best. Where two scores are as near as sums in float32 are, either may have come first; so may they, of an
engine that drafts in half precision, where they are as near as such sums are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from specscope.tracer.oracle.invariants.base import Context, present, tree_is_recorded

CLOSE = 1e-4  # scores that lie nearer, absolutely or in proportion, may stand in either order
#: Binary digits of a number, the first included.
DIGITS = {"float16": 11, "bfloat16": 8}


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


def are_near(c: Context, score: float, other: float) -> bool:
    """Whether rounding may have put two sums of log-probabilities, from the root down, in either order."""
    off, size = abs(score - other), max(1.0, abs(score))
    return off <= CLOSE * size or off <= _rounding_of_sums(c, size)


def _rounding_of_sums(c: Context, size: float) -> float:
    """By how much two sums of about ``size`` may be off each other, where the drafter's log-probabilities, and so their
    sums, are numbers of the run's half-precision dtype: each level of each sum is off by half a rounding. 0 of others.
    """
    digits, draft, tree = DIGITS.get(c.manifest.dtype), c.step.draft, c.step.tree
    levels = [level.logprobs for level in draft.levels] if draft is not None and draft.levels else []
    summed = [*levels, *([tree.logprobs] if tree is not None and tree.logprobs is not None else [])]
    if digits is None or not summed or not all(_has_digits(value, digits) for values in summed for value in values):
        return 0.0
    num_levels = len(levels) or max(present(tree).depths)
    return num_levels * math.ldexp(1.0, math.frexp(size)[1] - digits)


def _has_digits(value: float, digits: int) -> bool:
    return not math.isfinite(value) or math.ldexp(math.frexp(value)[0], digits).is_integer()


def passed_over(c: Context, candidates: Sequence[int], kept: set[int]) -> Better | None:
    """Of ``candidates``, by number, the best that was left out, where it is clearly better than the worst that was
    kept."""
    scores = c.columns.scores
    chosen = [number for number in candidates if number in kept]
    others = [number for number in candidates if number not in kept]
    if not chosen or not others:
        return None
    worst, best = min(chosen, key=scores.__getitem__), max(others, key=scores.__getitem__)
    is_better = scores[best] > scores[worst] and not are_near(c, scores[best], scores[worst])
    return Better(best, worst, scores) if is_better and not math.isnan(scores[best]) else None


def is_dynamic(c: Context) -> bool:
    """Whether the step's tree is a dynamic one that its own drafter grew."""
    return c.policy.kind == "dynamic" and not tree_is_recorded(c.step)
