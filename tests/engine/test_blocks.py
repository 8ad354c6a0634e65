"""Block tables: every block is free or in a table, none is both, and a row's positions stay what they were written to,
whatever is written, truncated, shared and dropped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specscope.engine.cache.blocks import BlockChange, BlockTables

Row = list[str]  # what each position holds, in words of its own


class Model:
    """Rows as plain lists, and blocks as lists of cells: what the tables must agree with."""

    def __init__(self, num_rows: int, block_size: int) -> None:
        self.tables = BlockTables(num_rows, block_size)
        self.rows: list[Row] = [[] for _ in range(num_rows)]
        self.cells: dict[int, dict[int, str]] = {}
        self.written = 0

    def write(self, row: int, count: int, word: str | None = None) -> None:
        start = len(self.rows[row])
        change = self.tables.write(row, start, start + count)
        for copy in change.copies:
            self.cells[copy.target] = dict(self.cells.get(copy.source, {}))
        for position in range(start, start + count):
            self.written += 1
            content = f"{word}{position}" if word is not None else f"w{self.written}"
            block = self.tables.tables[row][position // self.tables.block_size]
            self.cells.setdefault(block, {})[position % self.tables.block_size] = content
            self.rows[row].append(content)
        self.note(change)

    def truncate(self, row: int, length: int) -> None:
        del self.rows[row][length:]
        self.note(self.tables.truncate(row, length))

    def share(self, row: int, other: int) -> None:
        """Every block whose positions in ``row`` hold what they hold in ``other``."""
        size = self.tables.block_size
        for index in range(self.tables.num_covering(len(self.rows[row]))):
            mine = self.rows[row][index * size : (index + 1) * size]
            if mine == self.rows[other][index * size : index * size + len(mine)]:
                self.note(self.tables.share(row, other, index))

    def drop(self, row: int) -> None:
        last = self.rows.pop()
        if row < len(self.rows):
            self.rows[row] = last
        self.note(self.tables.drop_row(row))

    def note(self, change: BlockChange) -> None:
        """What was freed holds nothing any more."""
        for block in change.freed:
            self.cells.pop(block, None)
        self.check()

    def check(self) -> None:
        tables, size = self.tables, self.tables.block_size
        counted = [sum(table.count(block) for table in tables.tables) for block in range(tables.num_blocks)]
        assert tables.references == counted
        assert sorted(tables.free) == [block for block, count in enumerate(counted) if not count]
        for row, table in enumerate(tables.tables):
            assert len(table) == -(-len(self.rows[row]) // size)
            assert len(set(table)) == len(table)
            for position, content in enumerate(self.rows[row]):
                assert self.cells[table[position // size]][position % size] == content


OPERATIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 9)),
    st.tuples(st.just("prompt"), st.integers(0, 3), st.integers(1, 9)),
    st.tuples(st.just("truncate"), st.integers(0, 3), st.integers(0, 12)),
    st.tuples(st.just("share"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("drop"), st.integers(0, 3), st.just(0)),
)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 5), st.integers(1, 4), st.lists(OPERATIONS, max_size=25))
def test_every_block_is_free_or_held_and_every_row_keeps_what_it_wrote(
    block_size: int, num_rows: int, operations: list[tuple[str, int, int]]
) -> None:
    model = Model(num_rows, block_size)
    for name, row, number in operations:
        if not model.rows:
            break
        row %= len(model.rows)
        if name == "write":
            model.write(row, number)
        elif name == "prompt":  # equal prompts hold equal words, so that there is something to share
            model.truncate(row, 0)
            model.write(row, number, word="p")
        elif name == "truncate":
            model.truncate(row, min(number, len(model.rows[row])))
        elif name == "share":
            model.share(row, number % len(model.rows))
        else:
            model.drop(row)
        model.check()
    while model.rows:
        model.drop(0)
    assert sorted(model.tables.free) == list(range(model.tables.num_blocks))


def test_a_shared_block_is_copied_by_the_row_that_writes_first_and_written_by_the_last() -> None:
    tables = BlockTables(2, 4)
    tables.write(0, 0, 6)
    tables.write(1, 0, 6)
    freed = [tables.share(1, 0, index).freed for index in range(2)]
    assert tables.tables == [[0, 1], [0, 1]]
    assert freed == [[2], [3]]
    change = tables.write(0, 6, 7)
    assert [(copy.source, copy.target) for copy in change.copies] == [(1, 3)], "what was freed last is taken first"
    assert tables.tables == [[0, 3], [0, 1]]
    assert not tables.write(1, 6, 7).copies, "it is the row's own again"
    assert tables.references[:4] == [2, 1, 0, 1]


def test_blocks_are_added_when_none_is_free() -> None:
    tables = BlockTables(1, 16, num_blocks=1)
    change = tables.write(0, 0, 16 * 20)
    assert change.taken == list(range(20))
    assert tables.num_blocks > 20


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted 1 or more"):
        BlockTables(1, 0)
    tables = BlockTables(2, 4)
    tables.write(0, 0, 4)
    with pytest.raises(ValueError, match="tables have 0 and 1"):
        tables.share(1, 0, 0)
    tables.references[0] = 0
    with pytest.raises(ValueError, match="no row had it"):
        tables.truncate(0, 0)


def test_a_note_counts_what_is_free_held_and_lost() -> None:
    tables = BlockTables(2, 4, num_blocks=6)
    change = tables.write(0, 0, 6)
    tables.write(1, 0, 4)
    tables.share(1, 0, 0)
    note = tables.note(0, change, tables.read_table(0), lambda index, rows: [f"{index}-{row}" for row in rows])
    assert (note.table, note.references, note.taken) == ([0, 1], [2, 1], [0, 1])
    assert [(block.block, block.rows, block.token_digests) for block in note.shared] == [(0, [0, 1], ["0-0", "0-1"])]
    assert (note.num_blocks, note.num_free, note.num_held, note.num_accounted) == (6, 4, 2, 6)
    tables.free.remove(5)
    lost = tables.note(0, change, [], lambda *_: [])
    assert (lost.num_free, lost.num_held, lost.num_accounted) == (3, 2, 5)
    tables.free.append(2)
    twice = tables.note(0, change, [], lambda *_: [])
    assert (twice.num_free, twice.num_held, twice.num_accounted) == (4, 2, 5)
