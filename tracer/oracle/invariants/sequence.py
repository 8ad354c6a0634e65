"""Invariants of a step beside the one before it in its turn."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, present


def _root_is_pending(c: Context) -> str | None:
    root, wanted = present(c.step.tree).tokens[0], present(c.root_before)
    return None if root == wanted else f"the root is {root}, the last bonus token {wanted}"


def _continues(c: Context) -> str | None:
    length, wanted = present(c.step.commit).committed_before, present(c.committed_before)
    return None if length == wanted else f"committed before is {length}, {_before(c)} left {wanted}"


def _length_continues(c: Context) -> str | None:
    length, wanted = present(c.step.tensors).committed_length, present(c.cached_before)
    before = "the prompt left" if c.previous is None else "the last step should have left"
    return None if length == wanted else f"committed length is {length}, {before} {wanted}"


def _pairs_continue(c: Context) -> str | None:
    count, wanted = present(present(c.step.draft).kv_before), present(c.pairs_before)
    return None if count == wanted else f"the drafter holds {count} pairs, the last step left {wanted}"


def _before(c: Context) -> str:
    return "the prompt" if c.previous is None else "the last step"


ROOT_IS_LAST_BONUS: Invariant[Context] = Invariant(
    id="sequence.root-is-last-bonus",
    statement="a step's root is the last bonus token",
    check=_root_is_pending,
    needs=("tree", "root_before"),
    across_steps=True,
    phase="tree",
)


LENGTH_CONTINUES: Invariant[Context] = Invariant(
    id="sequence.length-continues",
    statement="the cache that the forward is fed after grows by the root and the path that the last step accepted",
    check=_length_continues,
    needs=("tensors", "cached_before"),
    across_steps=True,
    phase="tensors",
)


COMMITTED_CONTINUES: Invariant[Context] = Invariant(
    id="sequence.committed-continues",
    statement="each step begins where the last one ended",
    check=_continues,
    needs=("commit", "committed_before"),
    across_steps=True,
    phase="commit",
)


PAIRS_CONTINUE: Invariant[Context] = Invariant(
    id="sequence.pairs-continue",
    statement="the drafter's cache has as many pairs as the last step left in it",
    check=_pairs_continue,
    needs=("draft.kv_before", "pairs_before"),
    applies=lambda c: c.previous is not None,
    across_steps=True,
    phase="draft",
)
