"""Which drafted nodes the teacher accepts: pure functions of a tree and the teacher's choices."""

from __future__ import annotations

from typing import NamedTuple

from specscope.tracer.walk import WalkedNode, greedy_walk


class Acceptance(NamedTuple):
    """The outcome of a step."""

    rule: str
    visited: list[WalkedNode]  # where the walk stood, node by node
    path: list[int]  # accepted slots in order, without the root
    bonus_token: int  # the teacher's token at the last accepted node; the next pending token
    bonus_slot: int  # where it was read

    @property
    def accepted_length(self) -> int:
        """Accepted nodes; excludes root and bonus."""
        return len(self.path)


def accept_greedy(tokens: list[int], parents: list[int], argmax: list[int]) -> Acceptance:
    """From the root follow the child that equals the teacher's argmax, until there is none.

    ``tokens``, ``parents`` and ``argmax`` have one entry a real slot. This is the step's one transfer to the host.
    """
    walk = greedy_walk(tokens, parents, argmax)
    last = walk.path[-1] if walk.path else 0
    return Acceptance("greedy", walk.visited, walk.path, argmax[last], last)
