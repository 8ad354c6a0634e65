"""Two steps side by side, and what of their nodes differs. Knows records, no pages.

Nodes are matched by the names that their marks give them: partners share a name, whatever their slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from specscope.tracer.naming.text import counted, legible, path_text
from specscope.tracer.oracle.invariants.structure import columns
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.mask import Cell


@dataclass(frozen=True)
class PairSide(StepView):
    """One of two steps."""

    run: str = ""  # its name, for people

    @cached_property
    def slots(self) -> dict[str, int]:
        """Node name to slot, in slot order."""
        return {self.name(slot): slot for slot in range(len(self.tokens))}

    @cached_property
    def ends(self) -> dict[tuple[int, ...], str]:
        """Tokens from below the root, to the name of the first node at their end."""
        tree = self.step.tree
        paths: list[tuple[int, ...]] = []
        ends: dict[tuple[int, ...], str] = {}
        for name, slot in self.slots.items():
            assert tree is not None
            above = tree.parents[slot] if slot < len(tree.parents) else 0
            paths.append((*(paths[above] if 0 <= above < slot else ()), tree.tokens[slot]) if slot else ())
            ends.setdefault(paths[slot], name)
        return ends

    @cached_property
    def seen(self) -> dict[str, frozenset[str | int]] | None:
        """By node name, what it sees: nodes by name, padding columns by number; None where no mask was recorded."""
        tensors = self.step.tensors
        if tensors is None or not tensors.mask_rows:
            return None
        names = list(self.slots)
        seen = {}
        for name, text in zip(names, tensors.mask_rows, strict=False):
            row = int.from_bytes(bytes.fromhex(text), "little")
            seen[name] = frozenset(names[at] if at < len(names) else at for at in columns(row))
        return seen

    def label(self, slot: int) -> str:
        """The node's token, visible; the root is named as such."""
        if slot >= len(self.tokens):
            return f"slot {slot}"
        shown = self.shown(self.tokens[slot])
        return f"root {shown}" if slot == 0 else shown

    def path(self, slot: int) -> str:
        """The texts from below the root to the node."""
        tree = self.step.tree
        parts: list[str] = []
        while tree is not None and 0 < slot < len(tree.tokens):
            parts.append(legible(self.shown(tree.tokens[slot])))
            above = tree.parents[slot] if slot < len(tree.parents) else 0
            slot = above if above < slot else 0  # parents come before their children; nonsense ends here
        return path_text(parts[::-1], " › ") or "root"


class NodeField(NamedTuple):
    """One thing about one node, on both sides; None where it was not recorded, or there is no such node."""

    a: str | None
    b: str | None

    @property
    def differs(self) -> bool:
        """Whether both say something, and not the same."""
        return self.a is not None and self.b is not None and self.a != self.b


class NodePair(NamedTuple):
    """A node of one tree or of both."""

    name: str
    slot_a: int | None
    slot_b: int | None


@dataclass(frozen=True)
class PairSides:
    """The baseline's step and the candidate's; ``compared`` says whether they can be compared."""

    a: PairSide
    b: PairSide
    compared: bool = True

    @cached_property
    def nodes(self) -> list[NodePair]:
        """Every node of both trees, the baseline's first, in slot order."""
        names = dict.fromkeys([*self.a.slots, *self.b.slots])
        return [NodePair(name, self.a.slots.get(name), self.b.slots.get(name)) for name in names]

    @cached_property
    def marked(self) -> list[NodePair]:
        """The nodes that differ."""
        marks_a, marks_b = self.a.marks.divergent, self.b.marks.divergent
        return [node for node in self.nodes if node.slot_a in marks_a or node.slot_b in marks_b]

    def label(self, node: NodePair) -> str:
        """The node's token."""
        return self.a.label(node.slot_a) if node.slot_a is not None else self.b.label(node.slot_b or 0)

    def path(self, node: NodePair) -> str:
        """The texts from below the root to the node."""
        return self.a.path(node.slot_a) if node.slot_a is not None else self.b.path(node.slot_b or 0)

    def field(self, node: NodePair, of: Callable[[PairSide, int], str | None]) -> NodeField:
        """What ``of`` says of the node on each side."""
        a = of(self.a, node.slot_a) if node.slot_a is not None else None
        return NodeField(a, of(self.b, node.slot_b) if node.slot_b is not None else None)

    def name_of_path(self, tokens: Sequence[int]) -> str | None:
        """The name of the first node at the end of these tokens; None where neither tree has it."""
        path = tuple(tokens)
        return self.a.ends.get(path, self.b.ends.get(path))

    def seen(self, node: NodePair) -> NodeField:
        """How many slots the node sees on each side, in words that differ where the slots do."""
        a, b = ((rows or {}).get(node.name) for rows in (self.a.seen, self.b.seen))
        words = [None if row is None else counted(len(row), "slot") for row in (a, b)]
        same_number = a is not None and b is not None and a != b and len(a) == len(b)
        return NodeField(words[0], f"{words[1]}, other ones" if same_number else words[1])

    @cached_property
    def mask_differences(self) -> MaskDifferences | None:
        """Where one mask sees what the other does not, slots matched by path; None where one was not recorded."""
        rows_a, rows_b = self.a.seen, self.b.seen
        if rows_a is None or rows_b is None:
            return None
        same_nodes = self.a.slots.keys() == self.b.slots.keys()
        cells_a, cells_b = list[Cell](), list[Cell]()
        for name in (name for name in rows_a if name in rows_b):
            for seen in rows_a[name] ^ rows_b[name]:
                common = seen in self.a.slots and seen in self.b.slots if isinstance(seen, str) else same_nodes
                if common:  # a node of only one tree cannot be seen in the other
                    cells_a += _cell(self.a, name, seen)
                    cells_b += _cell(self.b, name, seen)
        return MaskDifferences(sorted(cells_a), sorted(cells_b))


class MaskDifferences(NamedTuple):
    """The same bits, by the slots of each side."""

    a: list[Cell]
    b: list[Cell]


def _cell(side: PairSide, name: str, seen: str | int) -> list[Cell]:
    """The bit on one side; none where its padding does not reach that far."""
    size = len(side.step.tensors.mask_rows) if side.step.tensors is not None else 0
    column = side.slots[seen] if isinstance(seen, str) else seen
    return [Cell(side.slots[name], column)] if column < size else []
