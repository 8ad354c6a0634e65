"""Invariants of a step beside the one before it in its turn."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, next_root, present


def _root_is_pending(c: Context) -> str | None:
    root = present(c.step.tree).tokens[0]
    if c.previous is None:
        wanted = c.turn.root
    else:
        last = next_root(c.previous)
        if last is None:
            return None
        wanted = last
    return None if root == wanted else f"the root is {root}, the last bonus token {wanted}"


def _continues(c: Context) -> str | None:
    commit = present(c.step.commit)
    if c.previous is None:
        wanted = c.turn.num_committed
    elif c.previous.commit is not None:
        wanted = c.previous.commit.committed_after
    else:
        return None
    if commit.committed_before == wanted:
        return None
    return f"committed before is {commit.committed_before}, {_before(c)} left {wanted}"


def _length_continues(c: Context) -> str | None:
    length = present(c.step.tensors).committed_length
    if c.previous is None:
        wanted = c.turn.num_committed
    elif c.previous.tensors is not None and c.previous.accept is not None:
        wanted = c.previous.tensors.committed_length + c.previous.accept.accepted_length + 1
    else:
        return None
    return None if length == wanted else f"committed length is {length}, {_before(c)} left {wanted}"


def _before(c: Context) -> str:
    return "the prompt" if c.previous is None else "the last step"


ROOT_IS_LAST_BONUS: Invariant[Context] = Invariant(
    id="sequence.root-is-last-bonus",
    statement="a step's root is the last bonus token",
    check=_root_is_pending,
    needs=("tree",),
    across_steps=True,
    phase="tree",
)


LENGTH_CONTINUES: Invariant[Context] = Invariant(
    id="sequence.length-continues",
    statement="where commits are not recorded, the cache grows by the root and the path that the last step accepted",
    check=_length_continues,
    needs=("tensors",),
    applies=lambda c: c.step.commit is None,
    across_steps=True,
    phase="tensors",
)


COMMITTED_CONTINUES: Invariant[Context] = Invariant(
    id="sequence.committed-continues",
    statement="each step begins where the last one ended",
    check=_continues,
    needs=("commit",),
    across_steps=True,
    phase="commit",
)
