"""A paged cache: which blocks a commit took and gave back, and which rows share them."""

from __future__ import annotations

from pydantic import Field

from specscope.schemas.base import Digest, Section


class SharedBlock(Section):
    """A block that several rows have in their block tables."""

    block: int = Field(description="Which one.")
    rows: list[int] = Field(description="Rows of the batch that have it, as numbered in this step.")
    token_digests: list[Digest] = Field(
        description="Of each of these rows, of its tokens from the first one to the last that all of them hold of it."
    )


class BlocksSection(Section):
    """The blocks of a paged cache as the commit of all rows leaves them.

    Blocks that a cache keeps for later turns, or never gives away, count as free; those that a row has for what is not
    committed yet are not in its table.
    """

    table: list[int] = Field(description="Blocks of the row's committed prefix, in order.")
    references: list[int] = Field(description="Of each of them, how many tables it is in by the allocator's count.")
    taken: list[int] = Field(description="Blocks that this row's commit took from the free list, in order.")
    freed: list[int] = Field(description="Blocks that it gave back, in order.")
    num_blocks: int = Field(description="All blocks that there are.")
    num_free: int = Field(description="Entries of the free list.")
    num_held: int = Field(description="Different blocks in the tables of all rows.")
    num_accounted: int | None = Field(
        default=None, description="Different blocks that are in the free list or in a table. Absent: not known."
    )
    shared: list[SharedBlock] | None = Field(
        default=None, description="Blocks of the table that other rows have as well; absent where there are none."
    )
