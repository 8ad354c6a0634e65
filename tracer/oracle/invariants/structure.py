"""A tree and its tensors as plain lists, for the structural invariants of the phases tree and tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class TreeArrays:
    """A tree and the tensors made of it. Lists of the tree have ``num_slots`` entries, of the tensors
    ``padded_slots``; without tensors theirs are empty."""

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    fed_tokens: list[int]
    positions: list[int]
    mask_rows: list[int]  # bit c of row r: r sees tree column c
    prefix_visible: list[int]
    index_tensors: dict[str, list[int]]
    committed_length: int
    num_slots: int
    padded_slots: int
    vocab_size: int
    has_tensors: bool = True

    @cached_property
    def grows_from_root(self) -> bool:
        """Whether every slot stands after its parent and one deeper, up to the root: then no rule on either fails."""
        nodes = list(zip(self.parents, self.depths, strict=True))
        if nodes[0] != (0, 0):
            return False
        return all(0 <= p < s and d == self.depths[p] + 1 for s, (p, d) in enumerate(nodes[1:], start=1))

    def parent(self, slot: int) -> int | None:
        """The parent, where it is a slot."""
        value = self.parents[slot]
        return value if 0 <= value < self.num_slots else None


def expected_rows(parents: list[int], num_slots: int, padded_slots: int) -> list[int]:
    """The mask rows that ``parents`` imply: ancestors and self; padding rows themselves alone."""
    return [*tree_rows(parents, num_slots), *(1 << slot for slot in range(num_slots, padded_slots))]


def tree_rows(parents: list[int], num_slots: int) -> Iterator[int]:
    """The rows of the tree one by one: those of a huge one are as large as its square."""
    rows: list[int] = []
    for slot in range(num_slots):
        parent = parents[slot]
        rows.append((rows[parent] if 0 <= parent < slot else 0) | 1 << slot)
        yield rows[-1]


def columns(row: int) -> list[int]:
    """The set bits of a mask row."""
    return [c for c, bit in enumerate(reversed(f"{row:b}")) if bit == "1"]
