"""The cache: commits equal sequential decoding, the prefix is never written, growth keeps what was there."""

from __future__ import annotations

import pytest
import torch

from specscope.engine.cache import TreeCache
from specscope.engine.commit import commit_step

LAYERS, HEADS, WIDTH = 3, 2, 4


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(1, HEADS, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def feed(cache: TreeCache, count: int, seed: int) -> None:
    for layer in range(LAYERS):
        cache.update(rows(count, seed + layer), rows(count, seed + 100 + layer), layer)


def contents(cache: TreeCache) -> list[torch.Tensor]:
    return [cache.prefix(layer, cache.committed_length).clone() for layer in range(LAYERS)]


@pytest.mark.parametrize("slots", [[0], [0, 1], [0, 2, 5], [0, 1, 2, 3, 4, 5]])
def test_a_path_commit_keeps_exactly_the_paths_rows(slots: list[int]) -> None:
    cache = TreeCache(LAYERS, capacity=32)
    feed(cache, 5, seed=0)
    cache.commit_length(5)
    before = contents(cache)
    feed(cache, 6, seed=50)
    destinations = cache.commit_path(slots)
    assert destinations == list(range(5, 5 + len(slots)))
    assert cache.committed_length == 5 + len(slots)
    assert cache.tail_length == 0
    for layer in range(LAYERS):
        keys, values = cache.gather(destinations)[layer]
        assert torch.equal(keys, rows(6, 50 + layer)[:, :, slots])
        assert torch.equal(values, rows(6, 150 + layer)[:, :, slots])
        assert torch.equal(cache.prefix(layer, 5), before[layer])


def test_growth_keeps_what_was_there() -> None:
    cache = TreeCache(LAYERS, capacity=4)
    feed(cache, 3, seed=0)
    cache.commit_length(3)
    before = contents(cache)
    feed(cache, 300, seed=9)
    cache.commit_length(0)
    assert cache.gather([302]).shape[4] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, contents(cache), strict=True))


def test_truncation_drops_the_tail_too() -> None:
    cache = TreeCache(LAYERS, capacity=32)
    feed(cache, 8, seed=0)
    cache.commit_length(8)
    feed(cache, 4, seed=1)
    cache.truncate(3)
    assert (cache.committed_length, cache.tail_length, cache.get_seq_length()) == (3, 0, 3)


def test_impossible_commits_are_refused() -> None:
    cache = TreeCache(LAYERS, capacity=32)
    feed(cache, 2, seed=0)
    with pytest.raises(ValueError, match="tail"):
        cache.commit_length(3)
    with pytest.raises(ValueError, match="tail"):
        cache.commit_path([0, 2])
    with pytest.raises(ValueError, match="committed"):
        cache.truncate(1)


def test_a_commits_checksums_show_a_copy_that_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled() -> TreeCache:
        cache = TreeCache(LAYERS, capacity=32)
        feed(cache, 4, seed=0)
        cache.commit_length(4)
        feed(cache, 6, seed=7)
        return cache

    honest = commit_step(filled(), [0, 3, 4], checked_layer=1).content
    assert honest is not None
    assert honest.source_checksums == honest.written_checksums
    assert honest.prefix_before == honest.prefix_after

    overlapping = TreeCache.commit_path

    def descending(cache: TreeCache, slots: list[int]) -> list[int]:
        start = cache.committed_length
        for at in reversed(range(len(slots))):  # overwrites row 3 before it is read
            for layer in range(LAYERS):
                whole = cache.prefix(layer, start + 6)
                whole[..., start + at + 1, :] = whole[..., start + slots[at], :]
        return overlapping(cache, slots)

    monkeypatch.setattr(TreeCache, "commit_path", descending)
    wrong = commit_step(filled(), [0, 3, 4], checked_layer=1).content
    assert wrong is not None
    assert wrong.source_checksums != wrong.written_checksums


def test_layers_of_unlike_shape_are_refused() -> None:
    cache = TreeCache(2, capacity=8)
    cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    with pytest.raises(ValueError, match="like the first one's"):
        cache.update(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), 1)
