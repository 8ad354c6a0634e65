"""The greedy acceptance walk, on plain lists: the engine accepts with it, and the oracle recomputes with it."""

from __future__ import annotations

from typing import NamedTuple


class WalkedNode(NamedTuple):
    """One node where the walk stood."""

    slot: int
    wanted: int  # the teacher's token there
    child: int | None  # the slot it went to; None where the walk ended


class GreedyWalk(NamedTuple):
    """The whole walk."""

    visited: list[WalkedNode]
    path: list[int]  # accepted slots, without the root


def greedy_walk(tokens: list[int], parents: list[int], argmax: list[int]) -> GreedyWalk:
    """From slot 0 go to the child whose token is the teacher's argmax, until there is none.

    All three lists have one entry a real slot. Among siblings with equal tokens the lowest slot counts.
    """
    children: dict[tuple[int, int], int] = {}
    for node in range(len(tokens) - 1, 0, -1):
        children[parents[node], tokens[node]] = node
    visited: list[WalkedNode] = []
    slot: int | None = 0
    while slot is not None and len(visited) < len(tokens):
        child = children.get((slot, argmax[slot]))
        visited.append(WalkedNode(slot, argmax[slot], child))
        slot = child
    return GreedyWalk(visited, [node.child for node in visited if node.child is not None])
