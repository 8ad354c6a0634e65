"""Invariants of the tree phase: the tree by itself, beside the candidates, and beside its policy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from specscope.schemas import TreePolicy
from specscope.tracer.oracle.invariants.base import Context, Invariant, present, tree_is_recorded
from specscope.tracer.oracle.invariants.proposers import (
    candidate_slots,
    has_several,
    levels_of,
    looks_up,
    merged_are_best,
    names_are_right,
    outside_levels,
    stands_in_text,
)
from specscope.tracer.oracle.invariants.replayed import needless_replacement, nodes_among
from specscope.tracer.oracle.invariants.selection import CLOSE, are_near, is_dynamic, passed_over
from specscope.tracer.oracle.invariants.sizing import is_sized, size_pays
from specscope.tracer.oracle.invariants.structure import TreeArrays

# The tree by itself.


def _vocabulary(t: TreeArrays) -> str | None:
    return next(
        (
            f"slot {s}: token {token}, wanted 0..{t.vocab_size - 1}"
            for s, token in enumerate(t.tokens)
            if not 0 <= token < t.vocab_size
        ),
        None,
    )


def _parents(t: TreeArrays) -> str | None:
    if t.parents[0] != 0:
        return f"the root's parent is {t.parents[0]}, wanted 0"
    return next(
        (
            f"slot {s}: parent {parent}, wanted 0..{s - 1}"
            for s, parent in enumerate(t.parents)
            if s > 0 and not 0 <= parent < s
        ),
        None,
    )


def _depths(t: TreeArrays) -> str | None:
    if t.depths[0] != 0:
        return f"the root's depth is {t.depths[0]}, wanted 0"
    if t.grows_from_root:
        return None
    for s in range(1, t.num_slots):
        parent = t.parent(s)
        if parent is not None and t.depths[s] != t.depths[parent] + 1:
            return f"slot {s}: depth {t.depths[s]}, wanted {t.depths[parent] + 1}, one more than its parent {parent}"
    return None


def _siblings(t: TreeArrays) -> str | None:
    seen: dict[tuple[int, int], int] = {}
    for s in range(1, t.num_slots):
        key = (t.parents[s], t.tokens[s])
        if key in seen:
            return f"slots {seen[key]} and {s} are both token {key[1]} under parent {key[0]}"
        seen[key] = s
    return None


def _reaches_root(t: TreeArrays) -> str | None:
    if t.grows_from_root:
        return None
    for s in range(1, t.num_slots):
        at: int | None = s
        for _ in range(min(max(t.depths[s], 0), t.num_slots)):
            at = None if at is None else t.parent(at)
        if at != 0:
            return f"slot {s}: {t.depths[s]} steps up end at {at}, wanted the root"
    return None


# The tree beside what was proposed.


def _nodes_proposed(c: Context) -> str | None:
    if tree_is_recorded(c.step):
        return needless_replacement(c)
    tree = present(c.step.tree)
    outside = outside_levels(tree, levels_of(c.manifest))
    slots = candidate_slots(c.step, c.columns, outside)
    for slot in range(1, len(tree.tokens)):
        if slot not in slots and slot not in outside:
            return f"slot {slot}: token {tree.tokens[slot]} was never proposed under slot {tree.parents[slot]}"
    return None if has_several(c) or tree.scores is None else _other_score(c, tree.scores, slots)


def _other_score(c: Context, scores: list[float], slots: dict[int, int | None]) -> str | None:
    """The first slot whose score is not that of the candidate that it is."""
    of_candidates = c.columns.scores
    for slot, number in slots.items():
        if number is None or slot >= len(scores):
            continue
        got, wanted = scores[slot], of_candidates[number]
        if abs(got - wanted) <= CLOSE:  # as nearly always, and then near at every size
            continue
        if got != wanted and not are_near(c, got, wanted, additions=2 * present(c.step.tree).depths[slot]):
            return f"slot {slot}: score {got:.6g}, it was proposed with {wanted:.6g}"
    return None


def _kept_are_best(c: Context) -> str | None:
    columns = c.columns
    if has_several(c):
        num_kept = len(present(c.step.tree).tokens) - 1
        return merged_are_best(c) or _too_few(c, columns.distinct(range(len(columns.scores))), num_kept)
    nodes = nodes_among(c.step, columns)
    if nodes is None:
        return None  # another rule names the node that was never proposed
    candidates = columns.distinct(range(len(columns.scores)))
    better = passed_over(c, candidates, set(nodes))
    return _too_few(c, candidates, len(nodes)) if better is None else str(better)


def _too_few(c: Context, candidates: Sequence[int], kept: int) -> str | None:
    """Of a writer that says that it drafts all that its budget allows; masked candidates are none."""
    policy = c.policy
    if policy.adaptive is not False or present(c.step.tree).depth_limit is not None or kept >= policy.budget:
        return None
    wanted = min(policy.budget, sum(c.columns.scores[number] > -math.inf for number in candidates))
    return f"{kept} nodes were kept, wanted {wanted}: the policy is not adaptive" if kept < wanted else None


def _own_tree(c: Context) -> bool:
    """Whether the drafter's own tree was run; a recorded one in its place says nothing of this run."""
    return not tree_is_recorded(c.step)


# The tree beside its policy.


ADAPTIVE_HINT = "a writer whose steps may draft fewer nodes says so by tree_policy.adaptive: true in the manifest"


def _shape(c: Context) -> str | None:
    policy, tree = c.policy, present(c.step.tree)
    nodes, depth = len(tree.tokens) - 1, max(tree.depths, default=0)
    if policy.kind == "none":
        return None if nodes == 0 else f"{nodes} nodes, although nothing is drafted"
    if nodes > policy.budget:
        return f"{nodes} nodes, the budget is {policy.budget}"
    most = policy.depth if tree.depth_limit is None else min(policy.depth, tree.depth_limit)
    if depth > most:
        return f"depth {depth}, wanted at most {most}"
    wants_all = _wants_all(c)
    if policy.choices is not None and policy.kind in ("static", "chain"):
        wanted = {tuple(path) for path in policy.choices if len(path) <= most}
        return _fixed_shape_problem(policy, _ranks(c, policy), wanted if wants_all else set())
    return _chain_problem(policy, tree.parents, most if wants_all else 0) if policy.kind == "chain" else None


def _wants_all(c: Context) -> bool:
    """Whether the step must draft every node of a fixed tree: by what the writer says, else by what it proposed."""
    policy = c.policy
    if policy.adaptive is not None:
        return not policy.adaptive
    # A lookup drafts as much of the tree as it finds, and a drafter may stop early; all levels propose all of it.
    levels = c.step.draft.levels if c.step.draft is not None else None
    return levels is not None and len(levels) >= policy.depth


def _unless_adaptive(policy: TreePolicy) -> str:
    """How a writer that drafts fewer nodes on purpose says so, where it has not said anything of it."""
    return "" if policy.adaptive is not None else f"; {ADAPTIVE_HINT}"


def _ranks(c: Context, policy: TreePolicy) -> list[tuple[int, ...]]:
    """Per slot after the root, the child ranks that lead to it: those of its candidate, where they are recorded.

    Else siblings have, in slot order, the ranks that the policy names. One more than it names has no rank in it.
    """
    levels = c.step.draft.levels if c.step.draft is not None else None
    nodes = nodes_among(c.step, c.columns) if levels and _own_tree(c) else None
    if nodes is not None:
        return [c.candidates[number].ranks for number in nodes]
    named: dict[tuple[int, ...], list[int]] = {}
    for *above, rank in sorted(map(tuple, policy.choices or ())):
        named.setdefault(tuple(above), []).append(rank)
    paths: list[tuple[int, ...]] = [()]
    children: Counter[int] = Counter()
    for parent in present(c.step.tree).parents[1:]:
        ranks, number = named.get(paths[parent], []), children[parent]
        rank = ranks[number] if number < len(ranks) else number + 1 + max(ranks, default=-1) - len(ranks)
        children[parent] += 1
        paths.append((*paths[parent], rank))
    return paths[1:]


def _fixed_shape_problem(policy: TreePolicy, ranks: list[tuple[int, ...]], wanted: set[tuple[int, ...]]) -> str | None:
    """Of a tree that must have the nodes ``wanted``, and may have any of its policy."""
    allowed = set(map(tuple, policy.choices or ()))
    for slot, path in enumerate(ranks, 1):
        if path not in allowed:
            return f"slot {slot}: child ranks {list(path)} are no node of the {policy.kind} tree"
    missing = sorted(wanted - set(ranks), key=lambda path: (len(path), path))
    if missing:
        problem = f"{len(missing)} nodes of the {policy.kind} tree are missing, child ranks {list(missing[0])} first"
        return problem + _unless_adaptive(policy)
    return None


def _chain_problem(policy: TreePolicy, parents: list[int], wanted: int) -> str | None:
    """Of a chain whose nodes were not recorded one by one. Its depth may be any number that a file holds."""
    stray = next((slot for slot in range(1, len(parents)) if parents[slot] != slot - 1), None)
    if stray is not None:
        return f"slot {stray}: under slot {parents[stray]}, wanted slot {stray - 1}, as in a chain"
    missing = wanted - (len(parents) - 1)
    return f"{missing} nodes of the chain are missing{_unless_adaptive(policy)}" if missing > 0 else None


def _scores_add_up(c: Context) -> str | None:
    tree = present(c.step.tree)
    logprobs, scores = tree.logprobs or [], tree.scores or []
    if not len(logprobs) == len(scores) == len(tree.tokens):
        return f"{len(logprobs)} log-probabilities and {len(scores)} scores for {len(tree.tokens)} slots"
    if (logprobs[0], scores[0]) != (0, 0):
        return f"the root has log-probability {logprobs[0]} and score {scores[0]}, wanted 0 and 0"
    for slot in range(1, len(scores)):
        wanted = scores[tree.parents[slot]] + logprobs[slot]
        if scores[slot] == wanted or abs(scores[slot] - wanted) <= CLOSE:  # both may be -inf
            continue
        if not are_near(c, wanted, scores[slot], additions=1):
            return f"slot {slot}: score {scores[slot]}, wanted {wanted:.6g}, its parent's and its own log-probability"
    return None


#: On plain lists; the engine checks them before a kernel runs.
TREE_STRUCTURE: tuple[Invariant[TreeArrays], ...] = (
    Invariant(
        id="tree.tokens-in-vocabulary",
        statement="every token is an id of the teacher",
        check=_vocabulary,
        needs=("tree",),
    ),
    Invariant(
        id="tree.parent-before-child",
        statement="parents lie in 0..slot - 1; the root is its own",
        check=_parents,
        needs=("tree",),
    ),
    Invariant(
        id="tree.depth-follows-parent",
        statement="depth is the parent's plus one",
        check=_depths,
        needs=("tree",),
    ),
    Invariant(
        id="tree.siblings-distinct",
        statement="no two children of a node have the same token",
        check=_siblings,
        needs=("tree",),
    ),
    Invariant(
        id="tree.reaches-root",
        statement="parent after parent, depth times, is the root",
        check=_reaches_root,
        needs=("tree",),
    ),
)


#: On records.
TREE: tuple[Invariant[Context], ...] = (
    Invariant(
        id="tree.nodes-were-proposed",
        statement=(
            "every node is a candidate under its parent, with its score; a replay puts in only trees that are not its"
            " own candidates'"
        ),
        check=_nodes_proposed,
        needs=("draft.levels", "tree"),
    ),
    Invariant(
        id="tree.best-of-candidates",
        statement="no candidate that a dynamic tree leaves out is better than one that it keeps",
        check=_kept_are_best,
        needs=("draft.levels", "tree"),
        applies=is_dynamic,
    ),
    Invariant(
        id="tree.shape-is-policy",
        statement="the tree has the shape that its policy allows",
        check=_shape,
        needs=("tree",),
        applies=_own_tree,
    ),
    Invariant(
        id="tree.scores-add-up",
        statement="a score is the parent's and the node's log-probability",
        check=_scores_add_up,
        needs=("tree.scores", "tree.logprobs"),
        applies=_own_tree,
    ),
    Invariant(
        id="tree.proposed-by",
        statement="a node names its proposers, among them the one with levels just where it is one of their candidates",
        check=names_are_right,
        needs=("tree.proposed_by",),
        applies=has_several,
    ),
    Invariant(
        id="tree.lookup-is-in-text",
        statement="what a lookup proposed has followed the root's token in the text",
        check=stands_in_text,
        needs=("tree.proposed_by", "text"),
        applies=looks_up,
    ),
    Invariant(
        id="tree.size-pays",
        statement="a tree that is sized by its costs has as many levels and nodes as promise the most tokens per ms",
        check=size_pays,
        needs=("draft.levels", "tree"),
        applies=is_sized,
    ),
)
