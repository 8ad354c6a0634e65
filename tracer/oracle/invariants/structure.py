"""Structural invariants of one tree and its tensors, on plain lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from specscope.tracer.oracle.invariants.base import Invariant, first_mismatch

#: What a list of positions of a whole number of times the slots is: that of a rotation of several axes.
SEVERAL_POSITIONS = (
    "; the format has room for one position a row: of several axes (m-rope) write the one that counts text"
)


@dataclass(frozen=True)
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
        """Whether every slot stands behind its parent and one deeper, up to the root: then no rule on either fails."""
        nodes = list(zip(self.parents, self.depths, strict=True))
        if nodes[0] != (0, 0):
            return False
        return all(0 <= p < s and d == self.depths[p] + 1 for s, (p, d) in enumerate(nodes[1:], start=1))

    def parent(self, slot: int) -> int | None:
        """The parent, where it is a slot."""
        value = self.parents[slot]
        return value if 0 <= value < self.num_slots else None


def _sizes(t: TreeArrays) -> str | None:
    for name in ("tokens", "parents", "depths"):
        if len(getattr(t, name)) != t.num_slots:
            return f"{name}: got {len(getattr(t, name))} entries, wanted {t.num_slots}, the slots"
    if not t.has_tensors:
        return None if t.num_slots >= 1 else "no slot, not even a root"
    for name in ("fed_tokens", "positions", "mask_rows", "prefix_visible"):
        entries = len(getattr(t, name))
        if entries != t.padded_slots:
            problem = f"{name}: got {entries} entries, wanted {t.padded_slots}, the padded slots"
            return problem + (
                SEVERAL_POSITIONS if name == "positions" and _is_multiple(entries, t.padded_slots) else ""
            )
    if not t.padded_slots >= t.num_slots >= 1:
        return f"{t.num_slots} slots in {t.padded_slots} padded slots"
    wide = next((row for row, bits in enumerate(t.mask_rows) if bits.bit_length() > t.padded_slots + 7), None)
    return None if wide is None else f"mask row {wide} has columns behind {t.padded_slots}, the padded slots"


def _is_multiple(number: int, of: int) -> bool:
    return of > 0 and number > of and number % of == 0


def _vocabulary(t: TreeArrays) -> str | None:
    return next(
        (
            f"slot {s}: token {token}, wanted 0..{t.vocab_size - 1}"
            for s, token in enumerate(t.tokens)
            if not 0 <= token < t.vocab_size
        ),
        None,
    )


def _parents(t: TreeArrays) -> str | None:
    if t.parents[0] != 0:
        return f"the root's parent is {t.parents[0]}, wanted 0"
    return next(
        (
            f"slot {s}: parent {parent}, wanted 0..{s - 1}"
            for s, parent in enumerate(t.parents)
            if s > 0 and not 0 <= parent < s
        ),
        None,
    )


def _depths(t: TreeArrays) -> str | None:
    if t.depths[0] != 0:
        return f"the root's depth is {t.depths[0]}, wanted 0"
    if t.grows_from_root:
        return None
    for s in range(1, t.num_slots):
        parent = t.parent(s)
        if parent is not None and t.depths[s] != t.depths[parent] + 1:
            return f"slot {s}: depth {t.depths[s]}, wanted {t.depths[parent] + 1}, one more than its parent {parent}"
    return None


def _siblings(t: TreeArrays) -> str | None:
    seen: dict[tuple[int, int], int] = {}
    for s in range(1, t.num_slots):
        key = (t.parents[s], t.tokens[s])
        if key in seen:
            return f"slots {seen[key]} and {s} are both token {key[1]} under parent {key[0]}"
        seen[key] = s
    return None


def _reaches_root(t: TreeArrays) -> str | None:
    if t.grows_from_root:
        return None
    for s in range(1, t.num_slots):
        at: int | None = s
        for _ in range(min(max(t.depths[s], 0), t.num_slots)):
            at = None if at is None else t.parent(at)
        if at != 0:
            return f"slot {s}: {t.depths[s]} steps up end at {at}, wanted the root"
    return None


def expected_rows(parents: list[int], num_slots: int, padded_slots: int) -> list[int]:
    """The mask rows that ``parents`` imply: ancestors and self; padding rows themselves alone."""
    return [*_tree_rows(parents, num_slots), *(1 << slot for slot in range(num_slots, padded_slots))]


def _tree_rows(parents: list[int], num_slots: int) -> Iterator[int]:
    """The rows of the tree one by one: those of a huge one are as large as its square."""
    rows: list[int] = []
    for slot in range(num_slots):
        parent = parents[slot]
        rows.append((rows[parent] if 0 <= parent < slot else 0) | 1 << slot)
        yield rows[-1]


def columns(row: int) -> list[int]:
    """The set bits of a mask row."""
    return [c for c, bit in enumerate(reversed(f"{row:b}")) if bit == "1"]


def _mask(t: TreeArrays) -> str | None:
    for row, (got, wanted) in enumerate(zip(t.mask_rows, _tree_rows(t.parents, t.num_slots), strict=False)):
        if got != wanted:
            extra, missing = columns(got & ~wanted), columns(wanted & ~got)
            faults = [f"sees {extra} that are no ancestors"] if extra else []
            return f"row {row} " + " and ".join([*faults, *([f"misses {missing}"] if missing else [])])
    return None


def _row_sums(t: TreeArrays) -> str | None:
    return next(
        (
            f"row {s} sees {row.bit_count()} columns, wanted depth + 1 = {depth + 1}"
            for s, (row, depth) in enumerate(zip(t.mask_rows, t.depths, strict=False))
            if row.bit_count() != depth + 1
        ),
        None,
    )


def _padding(t: TreeArrays) -> str | None:
    for row in range(t.num_slots, t.padded_slots):
        if t.mask_rows[row] != 1 << row:
            return f"padding row {row} sees {columns(t.mask_rows[row])}, wanted itself alone"
    for row in range(t.num_slots):
        if t.mask_rows[row] >> t.num_slots:
            return f"row {row} sees padding columns {columns(t.mask_rows[row] >> t.num_slots << t.num_slots)}"
    return None


def _positions(t: TreeArrays) -> str | None:
    return next(
        (
            f"slot {s}: position {position}, wanted {t.committed_length + depth} = {t.committed_length} + depth {depth}"
            for s, (position, depth) in enumerate(zip(t.positions, t.depths, strict=False))
            if position != t.committed_length + depth
        ),
        None,
    )


def _indices(t: TreeArrays) -> str | None:
    for name, values in t.index_tensors.items():
        if values and min(values) >= 0 and max(values) < t.padded_slots:
            continue
        for at, value in enumerate(values):
            if not 0 <= value < t.padded_slots:
                return f"{name}[{at}] = {value}, wanted 0..{t.padded_slots - 1}"
    return None


def _fed_tokens(t: TreeArrays) -> str | None:
    return first_mismatch(t.fed_tokens[: t.num_slots], t.tokens, "slot")


_TREE = ("tree",)
_TENSORS = ("tree", "tensors")

#: The other rules take this one for granted.
SIZES: Invariant[TreeArrays] = Invariant(
    "tensors.sizes", "tree lists have a row a slot, tensors a row a padded slot", _sizes, _TREE
)
STRUCTURE: tuple[Invariant[TreeArrays], ...] = (
    SIZES,
    Invariant("tree.tokens-in-vocabulary", "every token is an id of the teacher", _vocabulary, _TREE),
    Invariant("tree.parent-before-child", "parents lie in 0..slot - 1; the root is its own", _parents, _TREE),
    Invariant("tree.depth-follows-parent", "depth is the parent's plus one", _depths, _TREE),
    Invariant("tree.siblings-distinct", "no two children of a node have the same token", _siblings, _TREE),
    Invariant("tree.reaches-root", "parent after parent, depth times, is the root", _reaches_root, _TREE),
    Invariant("tensors.mask-is-ancestors", "a row sees its ancestors and itself, nothing else", _mask, _TENSORS),
    Invariant("tensors.mask-row-sum", "a row sees depth + 1 columns", _row_sums, _TENSORS),
    Invariant("tensors.padding-isolated", "padding sees itself alone, and nobody sees it", _padding, _TENSORS),
    Invariant("tensors.position-is-length-plus-depth", "position = committed length + depth", _positions, _TENSORS),
    Invariant("tensors.index-in-range", "no index is negative or past the slots", _indices, _TENSORS),
    Invariant("tensors.tokens-are-the-trees", "the ids fed are the tree's", _fed_tokens, _TENSORS),
)
