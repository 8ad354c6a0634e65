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
    return f"committed before is {commit.committed_before}, the last step left {wanted}"


ROOT_IS_LAST_BONUS: Invariant[Context] = Invariant(
    id="sequence.root-is-last-bonus",
    statement="a step's root is the last bonus token",
    check=_root_is_pending,
    needs=("tree",),
    across_steps=True,
    phase="tree",
)


COMMITTED_CONTINUES: Invariant[Context] = Invariant(
    id="sequence.committed-continues",
    statement="each step begins where the last one ended",
    check=_continues,
    needs=("commit",),
    across_steps=True,
    phase="commit",
)
