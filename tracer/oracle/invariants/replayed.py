"""What holds only of a replay's steps: a tree is replaced only where the drafter proposed another one."""

from __future__ import annotations

from itertools import pairwise

from specscope.schemas import Step
from specscope.tracer.files.candidates import CandidateColumns
from specscope.tracer.oracle.invariants.base import Context, present
from specscope.tracer.oracle.invariants.proposers import levels_of

CLEARLY = 1e-3  # by how much a score must be better for rounding not to have decided


def needless_replacement(c: Context) -> str | None:
    """Whether the tree that was put in is the very one that the drafter's own candidates give.

    Where a near tie leaves open what they give, nothing is said.
    """
    policy = c.policy
    if levels_of(c.manifest) is not None:
        return None  # the others' proposals are not recorded
    nodes = nodes_among(c.step, c.columns)
    if nodes is None or any(a >= b for a, b in pairwise(nodes)):
        return None
    chosen = _is_fixed_tree(c, nodes) if policy.kind in ("static", "chain") else _are_the_best(c, nodes)
    return "the recorded tree was put in, and it is the one that the drafter's candidates give" if chosen else None


def nodes_among(step: Step, candidates: CandidateColumns) -> list[int] | None:
    """The number of the candidate that each slot after the root is; None where a slot is none of them."""
    tree = present(step.tree)
    nodes: list[int | None] = [None]
    for slot in range(1, len(tree.tokens)):
        number = candidates.numbers.get((nodes[tree.parents[slot]], tree.tokens[slot]))
        if number is None:
            return None
        nodes.append(number)
    return [number for number in nodes if number is not None]


def _is_fixed_tree(c: Context, nodes: list[int]) -> bool:
    choices = c.policy.choices
    return choices is not None and {c.candidates[number].ranks for number in nodes} == set(map(tuple, choices))


def _are_the_best(c: Context, nodes: list[int]) -> bool:
    kept, scores = set(nodes), c.columns.scores
    if len(kept) != min(c.policy.budget, present(c.step.draft).num_candidates):
        return False
    worst = min((scores[number] for number in nodes), default=0.0)
    return all(scores[number] < worst - CLEARLY for number in c.columns.firsts - kept)
