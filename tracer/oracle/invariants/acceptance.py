"""Invariants of the accept phase that hold under every rule, on records. ``sampling`` has what drawing adds."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, present, promises
from specscope.tracer.oracle.invariants.sampling import TRIALS, bonus_problem, draws_tokens, walk_problem
from specscope.tracer.oracle.invariants.walk import greedy_walk


def _rule(c: Context) -> str | None:
    got, wanted = present(c.step.accept).rule, c.manifest.sampling.rule
    return None if got == wanted else f"the step followed rule {got}, the run's is {wanted}"


def _walk(c: Context) -> str | None:
    if draws_tokens(c):
        return walk_problem(c)
    accept, tree = present(c.step.accept), present(c.step.tree)
    walk = greedy_walk(tree.tokens, tree.parents, present(c.step.verify).argmax)
    if accept.path != walk.path:
        return f"got path {accept.path}, the walk gives {walk.path}"
    if accept.visited is None:
        return None
    known = promises(c.manifest, "accept")
    stood = [(visit.slot, visit.child) for visit in accept.visited]
    wanted = [(node.slot, node.child) for node in walk.visited]
    if not known and all(child is None for _, child in stood):
        wanted = [(slot, None) for slot, _ in wanted]
    return None if stood == wanted else f"it stood at (slot, child) {stood[:8]}, the walk at {wanted[:8]}"


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
    accept, argmax = present(c.step.accept), present(c.step.verify).argmax
    last = accept.path[-1] if accept.path else 0
    if accept.bonus_slot != last:
        return f"read at slot {accept.bonus_slot}, wanted {last}, the last accepted"
    if draws_tokens(c):
        return bonus_problem(c)
    if 0 <= last < len(argmax) and accept.bonus_token != argmax[last]:
        return f"got {accept.bonus_token}, the teacher's choice at slot {last} is {argmax[last]}"
    return None


ACCEPTANCE: tuple[Invariant[Context], ...] = (
    Invariant("accept.rule", "the step follows the run's acceptance rule", _rule, ("accept",)),
    *TRIALS,
    Invariant(
        "accept.walk",
        "the path is the walk along the teacher's choices, or the accepted trials",
        _walk,
        ("tree", "verify", "accept"),
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        "accept.path-connected", "each accepted slot is a child of the one before", _path_connected, ("tree", "accept")
    ),
    Invariant("accept.length", "the accepted length counts the path", _accepted_length, ("accept",)),
    Invariant(
        "accept.bonus",
        "the bonus is the teacher's choice, or draw, at the last accepted slot",
        _bonus,
        ("verify", "accept"),
        needs_if_drawn="accept.bonus_draw",
    ),
)
