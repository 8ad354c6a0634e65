"""Invariants of a paged cache: which blocks hold a row's committed prefix, and that none is lost or held wrongly."""

from __future__ import annotations

from collections import Counter

from specscope.schemas import BlocksSection, SharedBlock
from specscope.tracer.oracle.invariants.base import Context, Invariant, first_mismatch, present


def _table_read(c: Context) -> str | None:
    return first_mismatch(present(present(c.step.verify).block_table), present(c.table_before), "block")


def _table_covers(c: Context) -> str | None:
    commit, blocks = present(c.step.commit), _blocks(c)
    length, size = commit.committed_after, present(c.manifest.block_size)
    wanted = -(-length // size)
    if len(blocks.table) != wanted:
        return f"the table has {len(blocks.table)} blocks of {size}, wanted {wanted} for {length} committed tokens"
    twice = _repeated(blocks.table)
    if twice is not None:
        return f"block {twice} is in the table twice"
    strange = next((block for block in blocks.table if not 0 <= block < blocks.num_blocks), None)
    if strange is not None:
        return f"block {strange} is in the table, and there are {blocks.num_blocks}"
    return _change(blocks, present(c.table_before))


def _change(blocks: BlocksSection, before: list[int]) -> str | None:
    """Whether what was taken is what the table has and did not have before."""
    known = set(before)
    new = [block for block in blocks.table if block not in known]
    if sorted(new) == sorted(blocks.taken):
        return None
    return f"the table has blocks {new} that it did not have before, and {blocks.taken} were taken"


def _no_leak(c: Context) -> str | None:
    blocks = _blocks(c)
    lost = blocks.num_blocks - present(blocks.num_accounted)
    if not lost:
        return None
    return f"of {blocks.num_blocks} blocks {blocks.num_accounted} are free or in a table: {lost} are in neither"


def _freed_once(c: Context) -> str | None:
    blocks = _blocks(c)
    twice = _repeated(blocks.freed)
    if twice is not None:
        return f"block {twice} was given back twice"
    kept = next(iter(set(blocks.freed).intersection(blocks.table)), None)
    if kept is not None:
        return f"block {kept} was given back, and is in the table"
    over = blocks.num_free + blocks.num_held - present(blocks.num_accounted)
    if not over:
        return None
    return (
        f"the free list has {blocks.num_free} entries and the tables {blocks.num_held} blocks, "
        f"{blocks.num_accounted} different ones: {over} are free twice, or free and in a table"
    )


def _shared_alike(c: Context) -> str | None:
    blocks = _blocks(c)
    if len(blocks.references) != len(blocks.table):
        return f"references of {len(blocks.references)} blocks, and the table has {len(blocks.table)}"
    shared = {entry.block: entry for entry in blocks.shared or ()}
    for block, count in zip(blocks.table, blocks.references, strict=True):
        entry = shared.pop(block, None)
        holders = 1 if entry is None else len(entry.rows)
        if count != holders:
            return f"block {block} is in the tables of {holders} rows, and its references say {count}"
    if shared:
        return f"block {next(iter(shared))} is said to be shared, and is not in the table"
    return next(filter(None, map(_unlike, blocks.shared or ())), None)


def _unlike(entry: SharedBlock) -> str | None:
    if len(set(entry.rows)) != len(entry.rows) or len(entry.rows) != len(entry.token_digests):
        return f"block {entry.block}: {len(entry.token_digests)} digests of rows {entry.rows}"
    first = entry.token_digests[0]
    odd = next((row for row, digest in zip(entry.rows, entry.token_digests, strict=True) if digest != first), None)
    if odd is None:
        return None
    return f"rows {entry.rows[0]} and {odd} share block {entry.block}, and hold other tokens up to its end"


def _blocks(c: Context) -> BlocksSection:
    return present(present(c.step.commit).blocks)


def _repeated(blocks: list[int]) -> int | None:
    return next((block for block, count in Counter(blocks).items() if count > 1), None)


def _is_paged(c: Context) -> bool:
    recorded = c.step.commit is not None and c.step.commit.blocks is not None
    return recorded or c.manifest.cache == "paged"


PAGING: tuple[Invariant[Context], ...] = (
    Invariant(
        id="paging.table-read",
        statement="the forward reads the prefix through the block table that the step before, or the prefill, left",
        check=_table_read,
        needs=("verify.block_table", "table_before"),
        applies=_is_paged,
        phase="verify",
    ),
    Invariant(
        id="paging.table-covers",
        statement="the block table covers the committed length, no block twice, the new ones being those taken",
        check=_table_covers,
        needs=("commit.blocks", "table_before", "manifest.block_size"),
        applies=_is_paged,
        phase="commit",
    ),
    Invariant(
        id="paging.no-leak",
        statement="every block is free, or in the table of a row",
        check=_no_leak,
        needs=("commit.blocks.num_accounted",),
        applies=_is_paged,
        phase="commit",
    ),
    Invariant(
        id="paging.freed-once",
        statement="no block is given back twice, or is free and in a table",
        check=_freed_once,
        needs=("commit.blocks.num_accounted",),
        applies=_is_paged,
        phase="commit",
    ),
    Invariant(
        id="paging.shared-alike",
        statement="rows that share a block hold the same tokens up to its end, and its references count them",
        check=_shared_alike,
        needs=("commit.blocks",),
        applies=_is_paged,
        phase="commit",
    ),
)
