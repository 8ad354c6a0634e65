"""What holds of a replay's steps alone: a tree is replaced only where the drafter found another one."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from specscope.schemas import DraftLevel, Step, TreePolicy
from specscope.tracer.oracle.invariants.base import Context, present

CLEARLY = 1e-3  # by how much a score must be better for rounding not to have decided


class Candidate(NamedTuple):
    """A proposal of the drafter."""

    number: int  # over all levels
    ranks: tuple[int, ...]  # child ranks from the root
    score: float  # sum of log-probabilities


def needless_replacement(c: Context) -> str | None:
    """Whether the tree that was put in is the very one that the drafter's own candidates give.

    Where a near tie leaves open what they give, nothing is said.
    """
    policy = c.manifest.tree_policy
    own = nodes_among(c.step, numbered(present(present(c.step.draft).levels)))
    if own is None or any(a.number >= b.number for a, b in pairwise(own)):
        return None
    chosen = _is_fixed_tree(own, policy) if policy.kind in ("static", "chain") else _are_the_best(c.step, own, policy)
    return "the recorded tree was put in, and it is the one that the drafter's candidates give" if chosen else None


def numbered(levels: list[DraftLevel]) -> dict[tuple[int | None, int], Candidate]:
    """Candidates by their parent's number, None for the root, and token; of equal siblings the first."""
    found: dict[tuple[int | None, int], Candidate] = {}
    candidates: list[Candidate] = []
    for level in levels:
        rows: list[int | None] = list(level.frontier) or [None]
        width = max(1, len(level.tokens) // len(rows))
        first = len(candidates)
        for at, (token, logprob) in enumerate(zip(level.tokens, level.logprobs, strict=True)):
            row = rows[min(at // width, len(rows) - 1)]
            above = None if row is None else candidates[row]
            ranks, score = ((), 0.0) if above is None else (above.ranks, above.score)
            candidate = Candidate(first + at, (*ranks, at % width), score + logprob)
            candidates.append(candidate)
            found.setdefault((row, token), candidate)
    return found


def nodes_among(step: Step, candidates: dict[tuple[int | None, int], Candidate]) -> list[Candidate] | None:
    """The candidate that each slot behind the root is; None where one is none."""
    tree = present(step.tree)
    found: list[Candidate | None] = [None]
    for slot in range(1, len(tree.tokens)):
        above = found[tree.parents[slot]]
        candidate = candidates.get((None if above is None else above.number, tree.tokens[slot]))
        if candidate is None:
            return None
        found.append(candidate)
    return [candidate for candidate in found if candidate is not None]


def _is_fixed_tree(nodes: list[Candidate], policy: TreePolicy) -> bool:
    return policy.choices is not None and {n.ranks for n in nodes} == set(map(tuple, policy.choices))


def _are_the_best(step: Step, nodes: list[Candidate], policy: TreePolicy) -> bool:
    candidates = numbered(present(present(step.draft).levels)).values()
    kept = {node.number for node in nodes}
    if len(kept) != min(policy.budget, present(step.draft).num_candidates):
        return False
    worst = min((node.score for node in nodes), default=0.0)
    return all(other.score < worst - CLEARLY for other in candidates if other.number not in kept)
