"""Invariants of the tensors phase: mask, positions and ids as they follow from the tree."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, first_mismatch, present
from specscope.tracer.oracle.invariants.structure import TreeArrays, columns, tree_rows

#: What a list of positions of a whole number of times the slots is: that of a rotation of several axes.
SEVERAL_POSITIONS = (
    "; the format has room for one position a row: of several axes (m-rope) write the one that counts text"
)


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


def _mask(t: TreeArrays) -> str | None:
    for row, (got, wanted) in enumerate(zip(t.mask_rows, tree_rows(t.parents, t.num_slots), strict=False)):
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
            return f"padding row {row} sees {columns(t.mask_rows[row])}, wanted only itself"
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


def _indices_of_tree(c: Context) -> str | None:
    """Of the tensors whose names say what they hold; an engine may have others."""
    tensors, parents = present(c.step.tensors), present(c.step.tree).parents
    named = tensors.index_tensors.get("parents")
    if named is not None and (problem := first_mismatch(named[: len(parents)], parents, "parents of slot")):
        return problem
    ancestors = list(range(len(parents)))
    above, width = tensors.index_tensors.get("ancestors", []), tensors.padded_slots
    for level, start in enumerate(range(0, len(above), width)):
        row = above[start : start + len(parents)]
        if problem := first_mismatch(row, ancestors, f"ancestors {level} levels above slot"):
            return problem
        ancestors = [parents[slot] for slot in ancestors]
    return None


def _prefix_visible(c: Context) -> str | None:
    tensors = present(c.step.tensors)
    if tensors.prefix_visible.count(tensors.committed_length) == len(tensors.prefix_visible):
        return None  # as nearly always
    for row, count in enumerate(tensors.prefix_visible):
        if count != tensors.committed_length:
            return f"row {row} sees {count} committed columns, wanted all {tensors.committed_length}"
    return None


#: The other rules on lists depend on this one.
SIZES: Invariant[TreeArrays] = Invariant(
    id="tensors.sizes",
    statement="tree lists have a row per slot, tensors a row per padded slot",
    check=_sizes,
    needs=("tree",),
)


#: On plain lists; the engine checks them before a kernel runs.
TENSORS_STRUCTURE: tuple[Invariant[TreeArrays], ...] = (
    Invariant(
        id="tensors.mask-is-ancestors",
        statement="a row sees its ancestors and itself, nothing else",
        check=_mask,
        needs=("tree", "tensors"),
    ),
    Invariant(
        id="tensors.mask-row-sum",
        statement="a row sees depth + 1 columns",
        check=_row_sums,
        needs=("tree", "tensors"),
    ),
    Invariant(
        id="tensors.padding-isolated",
        statement="padding sees only itself, and nobody sees it",
        check=_padding,
        needs=("tree", "tensors"),
    ),
    Invariant(
        id="tensors.position-is-length-plus-depth",
        statement="position = committed length + depth",
        check=_positions,
        needs=("tree", "tensors"),
    ),
    Invariant(
        id="tensors.index-in-range",
        statement="no index is negative or past the slots",
        check=_indices,
        needs=("tree", "tensors"),
    ),
    Invariant(
        id="tensors.tokens-are-the-trees",
        statement="the ids fed are the tree's",
        check=_fed_tokens,
        needs=("tree", "tensors"),
    ),
)


#: On records.
TENSORS: tuple[Invariant[Context], ...] = (
    Invariant(
        id="tensors.prefix-visible",
        statement="every row sees the whole committed prefix",
        check=_prefix_visible,
        needs=("tensors",),
    ),
    Invariant(
        id="tensors.indices-are-the-trees",
        statement="index tensors named parents and ancestors hold the tree's",
        check=_indices_of_tree,
        needs=("tree", "tensors"),
    ),
)
