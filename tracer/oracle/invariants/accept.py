"""Invariants of the accept phase. What the rules that try children are judged by is in ``trials`` and ``draws``."""

from __future__ import annotations

from itertools import takewhile

from specscope.schemas import TreeSection
from specscope.tracer.oracle.invariants.base import Context, Invariant, present, promises
from specscope.tracer.oracle.invariants.draws import bonus_problem
from specscope.tracer.oracle.invariants.probabilities import logit_problem, target_prob_problem
from specscope.tracer.oracle.invariants.trials import (
    coin_problem,
    decision_problem,
    draft_prob_problem,
    draws_tokens,
    threshold_problem,
    walk_problem,
)
from specscope.tracer.oracle.invariants.walk import GreedyWalk, greedy_walk


def _rule(c: Context) -> str | None:
    got, wanted = present(c.step.accept).rule, c.manifest.sampling.rule
    return None if got == wanted else f"the step followed rule {got}, the run's is {wanted}"


def _walk(c: Context) -> str | None:
    if draws_tokens(c):
        return walk_problem(c)
    accept, tree = present(c.step.accept), present(c.step.tree)
    choices = _choices(c)
    if len(choices) < len(tree.tokens):
        name = "verify.argmax" if accept.rule != "match" else "accept.drawn"
        return f"{name} has entries for {len(choices)} of {len(tree.tokens)} slots, wanted one for each"
    walk = greedy_walk(tree.tokens, tree.parents, choices)
    if accept.path != walk.path:
        return f"got path {accept.path}, the walk gives {walk.path}: {_parting(accept.path, walk, tree)}"
    if accept.visited is None:
        return None
    known = promises(c.manifest, "accept")
    stood = [(visit.slot, visit.child) for visit in accept.visited]
    wanted = [(node.slot, node.child) for node in walk.visited]
    if not known and all(child is None for _, child in stood):
        wanted = [(slot, None) for slot, _ in wanted]
    if stood != wanted:
        return f"it stood at (slot, child) {stood[:8]}, the walk at {wanted[:8]}"
    other = next((visit for visit in accept.visited if visit.wanted not in (None, choices[visit.slot])), None)
    if other is None:
        return None
    return f"at slot {other.slot} it wanted {other.wanted}, the teacher's choice there is {choices[other.slot]}"


def _parting(path: list[int], walk: GreedyWalk, tree: TreeSection) -> str:
    """What the teacher wants where ``path`` leaves the walk."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, walk.path, strict=False)))
    node = walk.visited[same]
    there = "no child has" if node.child is None else f"slot {node.child} has"
    taken = path[same] if same < len(path) else None
    beside = f"; slot {taken} has {tree.tokens[taken]}" if taken is not None and 0 < taken < len(tree.tokens) else ""
    return f"after slot {node.slot} the teacher wants {node.wanted}, which {there}{beside}"


def _choices(c: Context) -> list[int]:
    """Per slot, the token by which a child is accepted: the teacher's best, or under rule match the one drawn."""
    accept = present(c.step.accept)
    return present(c.step.verify).argmax if accept.rule != "match" else accept.drawn or []


def _path_connected(c: Context) -> str | None:
    tree, at = present(c.step.tree), 0
    for slot in present(c.step.accept).path:
        if not 0 < slot < len(tree.parents) or tree.parents[slot] != at:
            return f"slot {slot} on the path is no child of slot {at}"
        at = slot
    return None


def _accepted_length(c: Context) -> str | None:
    accept = present(c.step.accept)
    if accept.accepted_length == len(accept.path):
        return None
    return f"got {accept.accepted_length}, the path has {len(accept.path)} slots"


def _bonus(c: Context) -> str | None:
    accept, choices = present(c.step.accept), _choices(c)
    last = accept.path[-1] if accept.path else 0
    if accept.bonus_slot != last:
        return f"read at slot {accept.bonus_slot}, wanted {last}, the last accepted"
    if draws_tokens(c):
        return bonus_problem(c)
    if 0 <= last < len(choices) and accept.bonus_token != choices[last]:
        return f"got {accept.bonus_token}, the teacher's choice at slot {last} is {choices[last]}"
    return None


def _draws_drafts(c: Context) -> bool:
    return draws_tokens(c) and c.manifest.sampling.draft == "sampled" and c.step.forced is None


ACCEPT: tuple[Invariant[Context], ...] = (
    Invariant(
        id="accept.rule",
        statement="the step follows the run's acceptance rule",
        check=_rule,
        needs=("accept",),
    ),
    Invariant(
        id="accept.trials",
        statement=(
            "children are tried in slot order until one is accepted; its coin decides (block: the whole chain;"
            " typical: all; its probability)"
        ),
        check=decision_problem,
        needs=("tree", "accept"),
        applies=draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        id="accept.coins-distinct",
        statement="every trial of a step has its own coin, and the bonus token another",
        check=coin_problem,
        needs=("accept",),
        applies=draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        id="accept.thresholds",
        statement="the thresholds follow from the teacher's and the drafter's probabilities",
        check=threshold_problem,
        needs=("tree", "accept"),
        applies=draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        id="accept.target-probs",
        statement="the probabilities weighed are the teacher's at the parent",
        check=target_prob_problem,
        needs=("tree", "verify.logsumexp", "verify.top_tokens", "verify.top_logits", "accept"),
        applies=draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        id="accept.probs-follow-logits",
        statement="the probabilities weighed follow from the logits at temperature, top_k and top_p",
        check=logit_problem,
        needs=("accept.visited", "logits_of_trials"),
        applies=draws_tokens,
    ),
    Invariant(
        id="accept.draft-probs",
        statement="a drafted token is weighed by the probability that it was drawn with",
        check=draft_prob_problem,
        needs=("tree.logprobs", "accept.visited"),
        applies=_draws_drafts,
    ),
    Invariant(
        id="accept.walk",
        statement=(
            "the path is the walk along the teacher's choices, or the accepted trials (block: up to the last of them)"
        ),
        check=_walk,
        needs=("tree", "verify", "accept"),
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        id="accept.path-connected",
        statement="each accepted slot is a child of the one before",
        check=_path_connected,
        needs=("tree", "accept"),
    ),
    Invariant(
        id="accept.length",
        statement="the accepted length counts the path",
        check=_accepted_length,
        needs=("accept",),
    ),
    Invariant(
        id="accept.bonus",
        statement="the bonus is the teacher's choice, or draw, at the last accepted slot",
        check=_bonus,
        needs=("verify", "accept"),
        needs_if_drawn="accept.bonus_draw",
    ),
)
