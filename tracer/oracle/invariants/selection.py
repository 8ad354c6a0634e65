"""Invariants of a dynamic tree: what is fed on, and what is kept, are the best of the candidates.

A tree may have fewer nodes than its budget allows, unless its writer says that it is not adaptive; those that it has
must be the best. Where two scores are as near as sums in float32 are, either may have come first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from specscope.schemas import DraftLevel
from specscope.tracer.files.candidates import Candidate, first_of_equals
from specscope.tracer.oracle.invariants.base import Context, Invariant, present, tree_is_recorded
from specscope.tracer.oracle.invariants.replayed import nodes_among

CLOSE = 1e-4  # scores that lie nearer, absolutely or in proportion, may stand in either order


class _Better(NamedTuple):
    """A candidate that was passed over for a worse one."""

    left_out: Candidate
    kept: Candidate

    def __str__(self) -> str:
        left, kept = self.left_out, self.kept
        return (
            f"candidate {left.number} with score {left.score:.6g} was left out, candidate {kept.number} with "
            f"{kept.score:.6g} was kept"
        )


def _kept_are_best(c: Context) -> str | None:
    distinct = first_of_equals(c.candidates)
    nodes = nodes_among(c.step, distinct)
    if nodes is None:
        return None  # another rule names the node that was never proposed
    candidates = list(distinct.values())
    better = _passed_over(candidates, {node.number for node in nodes})
    return _too_few(c, candidates, len(nodes)) if better is None else str(better)


def _too_few(c: Context, candidates: list[Candidate], kept: int) -> str | None:
    """Of a writer that says that it drafts all that its budget allows; masked candidates are none."""
    policy = c.manifest.tree_policy
    if policy.adaptive is not False:
        return None
    wanted = min(policy.budget, sum(candidate.score > -math.inf for candidate in candidates))
    return f"{kept} nodes were kept, wanted {wanted}: the policy is not adaptive" if kept < wanted else None


def _fed_are_best(c: Context) -> str | None:
    candidates = first_of_equals(c.candidates).values()
    levels = present(present(c.step.draft).levels)
    for number, after in enumerate(levels[1:], start=1):
        before = [candidate for candidate in candidates if candidate.level == number - 1]
        better = _passed_over(before, set(after.frontier)) if _feeds_on(after, before) else None
        if better is not None:
            return f"level {number + 1} is fed on others than the best: {better}"
    return None


def _feeds_on(level: DraftLevel, above: list[Candidate]) -> bool:
    """Whether a level was fed candidates of the one before it alone."""
    return bool(level.frontier) and set(level.frontier) <= {candidate.number for candidate in above}


def _passed_over(candidates: list[Candidate], kept: set[int]) -> _Better | None:
    """The best of those left out, where it is clearly better than the worst that was kept."""
    chosen = [candidate for candidate in candidates if candidate.number in kept]
    others = [candidate for candidate in candidates if candidate.number not in kept]
    if not chosen or not others:
        return None
    worst, best = min(chosen, key=lambda candidate: candidate.score), max(others, key=lambda candidate: candidate.score)
    clear = best.score - worst.score > CLOSE * max(1.0, abs(best.score))
    return _Better(best, worst) if clear and not math.isnan(best.score) else None


def _is_dynamic(c: Context) -> bool:
    return c.manifest.tree_policy.kind == "dynamic" and not tree_is_recorded(c.step)


SELECTION: tuple[Invariant[Context], ...] = (
    Invariant(
        "draft.frontier-is-best",
        "a level of a dynamic tree is fed the best candidates of the level before",
        _fed_are_best,
        ("draft.levels",),
        _is_dynamic,
    ),
    Invariant(
        "tree.best-of-candidates",
        "no candidate that a dynamic tree leaves out is better than one that it keeps",
        _kept_are_best,
        ("draft.levels", "tree"),
        _is_dynamic,
    ),
)
