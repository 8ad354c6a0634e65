"""The cache: commits equal sequential decoding, the prefix is never written, every strategy leaves the same bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import RowCustody, commit_step, prefix_sums
from specscope.engine.cache.custody import as_digests
from specscope.engine.cache.strategies import STRATEGIES, commit_strategy
from specscope.tracer.errors import UsageError

LAYERS, HEADS, WIDTH = 3, 2, 4
FAST = ("in-place", "fast-reorder")


def states(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def feed(cache: TreeCache, count: int, seed: int) -> torch.Tensor:
    """Appends ``count`` random positions to every active row; returns them (L, 2, B, G, count, W)."""
    rows = len(cache.active_lengths)
    fed = states((LAYERS, 2, rows, HEADS, count, WIDTH), seed)
    for layer in range(LAYERS):
        cache.update(fed[layer, 0], fed[layer, 1], layer)
    return fed


def filled(strategy: str, lengths: list[int], capacity: int = 16) -> tuple[TreeCache, list[torch.Tensor]]:
    """A cache whose rows hold ``lengths`` committed positions, and what they hold (L, 2, G, length, W)."""
    cache = TreeCache(LAYERS, capacity, len(lengths), commit_strategy(strategy))
    held = []
    for row, length in enumerate(lengths):
        with cache.only(row):
            fed = feed(cache, length + 1, seed=row)
            cache.commit_length([length])
        held.append(fed[:, :, 0, :, :length])
    return cache, held


def content(cache: TreeCache, row: int) -> torch.Tensor:
    return cache.at(row, list(range(cache.committed_lengths[row])))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("slots", [[0], [0, 1], [0, 2, 5], [0, 1, 2, 3, 4, 5]])
def test_a_path_commit_keeps_the_prefix_and_exactly_the_paths_positions(strategy: str, slots: list[int]) -> None:
    cache, (held,) = filled(strategy, [5])
    branch = cache.branch()
    fed = feed(branch, 6, seed=50)
    assert cache.commit_paths(branch, [slots]) is None
    assert cache.committed_lengths == [5 + len(slots)]
    assert cache.tail_length == 0
    assert torch.equal(content(cache, 0), torch.cat([held, fed[:, :, 0][:, :, :, slots]], dim=3))


def paths(most: int) -> st.SearchStrategy[list[int]]:
    return st.sets(st.integers(1, most - 1), max_size=4).map(lambda rest: [0, *sorted(rest)])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_all_strategies_leave_the_same_bits_over_steps_of_ragged_batches(data: st.DataObject) -> None:
    """Each row equals its own sequence of positions, whatever the strategy, the lengths and the growth."""
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    steps = [
        (count, [data.draw(paths(count)) for _ in lengths])
        for count in data.draw(st.lists(st.integers(2, 7), min_size=1, max_size=4))
    ]
    results = []
    for strategy in STRATEGIES:
        cache, wanted = filled(strategy, lengths, capacity=8)
        for number, (count, slots) in enumerate(steps):
            branch = cache.branch()
            fed = feed(branch, count, seed=100 + number)
            cache.commit_paths(branch, slots)
            wanted = [torch.cat([held, fed[:, :, row][:, :, :, slots[row]]], dim=3) for row, held in enumerate(wanted)]
        for row, held in enumerate(wanted):
            assert torch.equal(content(cache, row), held), strategy
        results.append([content(cache, row) for row in range(len(lengths))])
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_work_of_a_branch_does_not_touch_what_is_committed(strategy: str) -> None:
    cache, held = filled(strategy, [5, 3])
    branch = cache.branch()
    feed(branch, 40, seed=50)  # makes the buffer grow as well
    for row in range(2):
        assert torch.equal(content(cache, row), held[row])
    if strategy == "replicate":
        assert branch is not cache
        assert cache.tail_length == 0
    else:
        assert branch is cache


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("slots", [[0, 3, 2], [1, 2], [0, 2, 2]])
def test_what_a_fast_strategy_cannot_trust_falls_back_to_the_full_reorder(strategy: str, slots: list[int]) -> None:
    cache, (held,) = filled(strategy, [5])
    branch = cache.branch()
    fed = feed(branch, 6, seed=50)
    objection = cache.commit_paths(branch, [slots])
    assert (objection is not None) == (strategy in FAST)
    assert torch.equal(content(cache, 0), torch.cat([held, fed[:, :, 0][:, :, :, slots]], dim=3))


def test_a_layer_that_ran_ahead_is_no_case_for_a_fast_commit() -> None:
    cache, _ = filled("in-place", [5])
    branch = cache.branch()
    feed(branch, 3, seed=50)
    more = states((1, HEADS, 1, WIDTH), 9)
    branch.update(more, more, 2)
    assert "tails differ" in (cache.commit_paths(branch, [[0, 1]]) or "")


def test_a_fallback_is_recorded_with_its_reason() -> None:
    cache, _ = filled("fast-reorder", [5])
    feed(cache, 6, seed=50)
    commit = commit_step(cache, cache, [[0, 3, 2]], [RowCustody(prefix_sums(cache, 0), 0)])[0]
    assert commit.strategy == "full-reorder"
    assert commit.fallback == "row 0: slots [0, 3, 2] do not ascend from the root"
    assert commit.content is not None
    assert torch.equal(commit.content.sources, commit.content.written)


def test_growth_keeps_what_was_there() -> None:
    cache, held = filled("in-place", [3, 7], capacity=4)
    feed(cache, 300, seed=9)
    cache.commit_length([0, 0])
    assert [torch.equal(content(cache, row), held[row]) for row in range(2)] == [True, True]


def test_rows_are_read_up_to_the_longest_rows_end_and_no_row_reads_anothers() -> None:
    cache, held = filled("in-place", [5, 2])
    fed = states((2, 2, HEADS, 3, WIDTH), 4)
    keys, values = cache.update(fed[0], fed[1], 0)
    assert keys.shape == (2, HEADS, 8, WIDTH)
    for row, length in enumerate([5, 2]):
        assert torch.equal(keys[row, :, :length], held[row][0, 0])
        assert torch.equal(values[row, :, length : length + 3], fed[1, row])
    assert cache.get_seq_length() == 8


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_dropped_rows_number_goes_to_the_last(row: int) -> None:
    cache, held = filled("in-place", [4, 6, 2])
    cache.drop_row(row)
    wanted = [*held]
    wanted[row] = wanted[-1]
    wanted.pop()
    assert cache.num_rows == 2
    assert [torch.equal(content(cache, r), wanted[r]) for r in range(2)] == [True, True]
    fed = feed(cache, 3, seed=60)
    cache.commit_paths(cache, [[0, 2], [0]])
    for r, slots in enumerate([[0, 2], [0]]):
        assert torch.equal(content(cache, r), torch.cat([wanted[r], fed[:, :, r][:, :, :, slots]], dim=3))


def test_truncation_shortens_one_row() -> None:
    cache, held = filled("in-place", [8, 5])
    cache.truncate(0, 3)
    assert cache.committed_lengths == [3, 5]
    assert torch.equal(content(cache, 0), held[0][:, :, :, :3])


def test_impossible_commits_are_refused() -> None:
    cache = TreeCache(LAYERS, capacity=32)
    with pytest.raises(ValueError, match="empty"):
        cache.at(0, [0])
    feed(cache, 2, seed=0)
    with pytest.raises(ValueError, match="tail"):
        cache.commit_length([3])
    for slots in ([0, 2], [-1]):
        with pytest.raises(ValueError, match="tail"):
            cache.commit_paths(cache, [slots])
    with pytest.raises(ValueError, match="committed"):
        cache.truncate(0, 1)
    with pytest.raises(UsageError, match="in-place"):
        commit_strategy("magic")


def test_a_commits_checksums_show_a_copy_that_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked() -> tuple[list[str], list[str], str, str]:
        cache, _ = filled("in-place", [4])
        feed(cache, 6, seed=7)
        found = commit_step(cache, cache, [[0, 3, 4]], [RowCustody(prefix_sums(cache, 0), 1)])[0].content
        assert found is not None
        before = as_digests(found.prefix)[found.prefix_layer]
        return as_digests(found.sources), as_digests(found.written), before, as_digests(found.prefix_after)[0]

    sources, written, before, after = checked()
    assert sources == written
    assert before == after

    honest = TreeCache.commit_paths

    def descending(cache: TreeCache, branch: TreeCache, slots: list[list[int]]) -> str | None:
        start = cache.committed_lengths[0]
        for at in reversed(range(len(slots[0]))):  # overwrites position 3 before it is read
            cache.buffer[..., start + at + 1, :] = cache.buffer[..., start + slots[0][at], :]
        return honest(cache, branch, slots)

    monkeypatch.setattr(TreeCache, "commit_paths", descending)
    sources, written, _, _ = checked()
    assert sources != written


def test_layers_of_unlike_shape_are_refused() -> None:
    cache = TreeCache(2, capacity=8)
    cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    with pytest.raises(ValueError, match="like the first one's"):
        cache.update(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), 1)
