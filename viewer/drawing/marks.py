"""Which nodes of a step a drawing marks, and by what name each answers to a click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NodeMarks:
    """Marks for all drawings of one step.

    Every drawing gives a node's element the attribute ``data-node`` with the node's name, so that selecting it in one
    selects it in all. In one step the name is the slot; of a pair, partners share a name.
    """

    divergent: frozenset[int] = frozenset()  # slots
    origin: int | None = None  # the slot where the divergence begins; None where it begins at no node
    names: Sequence[str] | None = None  # by slot; None: the slot's number
    inherited: frozenset[int] = frozenset()  # of the divergent ones, those that differ only because others do
    violated: frozenset[int] = frozenset()  # slots that a violated invariant names

    @property
    def independent(self) -> frozenset[int]:
        """The slots that differ by themselves."""
        return self.divergent - self.inherited

    def name(self, slot: int) -> str:
        """What ``data-node`` says for ``slot``."""
        return str(slot) if self.names is None or slot >= len(self.names) else self.names[slot]
