"""What holds only of a replay's steps: a tree is replaced only where the drafter proposed another one."""

from __future__ import annotations

from itertools import pairwise

from specscope.schemas import Step, TreePolicy
from specscope.tracer.files.candidates import Candidate
from specscope.tracer.oracle.invariants.base import Context, present
from specscope.tracer.oracle.invariants.proposers import levels_of

CLEARLY = 1e-3  # by how much a score must be better for rounding not to have decided


def needless_replacement(c: Context) -> str | None:
    """Whether the tree that was put in is the very one that the drafter's own candidates give.

    Where a near tie leaves open what they give, nothing is said.
    """
    policy = c.manifest.tree_policy
    if levels_of(c.manifest) is not None:
        return None  # the others' proposals are not recorded
    nodes = nodes_among(c.step, c.distinct_candidates)
    if nodes is None or any(a.number >= b.number for a, b in pairwise(nodes)):
        return None
    chosen = _is_fixed_tree(nodes, policy) if policy.kind in ("static", "chain") else _are_the_best(c, nodes)
    return "the recorded tree was put in, and it is the one that the drafter's candidates give" if chosen else None


def nodes_among(step: Step, candidates: dict[tuple[int | None, int], Candidate]) -> list[Candidate] | None:
    """The candidate that each slot after the root is; None where a slot is none of them."""
    tree = present(step.tree)
    nodes: list[Candidate | None] = [None]
    for slot in range(1, len(tree.tokens)):
        parent = nodes[tree.parents[slot]]
        candidate = candidates.get((None if parent is None else parent.number, tree.tokens[slot]))
        if candidate is None:
            return None
        nodes.append(candidate)
    return [candidate for candidate in nodes if candidate is not None]


def _is_fixed_tree(nodes: list[Candidate], policy: TreePolicy) -> bool:
    return policy.choices is not None and {node.ranks for node in nodes} == set(map(tuple, policy.choices))


def _are_the_best(c: Context, nodes: list[Candidate]) -> bool:
    kept = {node.number for node in nodes}
    if len(kept) != min(c.manifest.tree_policy.budget, present(c.step.draft).num_candidates):
        return False
    worst = min((node.score for node in nodes), default=0.0)
    others = c.distinct_candidates.values()
    return all(other.score < worst - CLEARLY for other in others if other.number not in kept)
