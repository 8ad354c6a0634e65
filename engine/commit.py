"""Phase commit: the accepted slots become part of the committed prefix, and, where asked, the proof that they did."""

from __future__ import annotations

from dataclasses import dataclass

from specscope.engine.cache import TreeCache
from specscope.engine.digests import digest_rows, digest_tensors


@dataclass(frozen=True)
class CommitContent:
    """Checksums around a row's commit. Moving positions changes no bit of them, whatever the device's arithmetic."""

    source_checksums: list[str]  # per layer, before the move
    written_checksums: list[str]  # per layer, after it
    prefix_layer: int  # the layer whose committed prefix was looked at
    prefix_before: str
    prefix_after: str


@dataclass(frozen=True)
class Commit:
    """What a commit did to one row."""

    strategy: str  # what was done
    fallback: str | None  # why that is not what was asked for
    committed_before: int
    committed_after: int
    source_slots: list[int]
    destination_rows: list[int]
    content: CommitContent | None  # None without an observer


def commit_step(
    cache: TreeCache, branch: TreeCache, slots: list[list[int]], checked_layers: list[int | None]
) -> list[Commit]:
    """Commits the tail positions ``slots`` of each row of ``branch``.

    Where a row's ``checked_layers`` is not None, its sources and that layer's prefix are checksummed around it.
    """
    before = list(cache.committed_lengths)
    sources = [
        None
        if layer is None
        else (_checksums(branch, row, [n + slot for slot in path]), _prefix_checksum(branch, layer, row, n))
        for row, (path, layer, n) in enumerate(zip(slots, checked_layers, before, strict=True))
    ]
    fallback = cache.commit_paths(branch, slots)
    name = cache.strategy.name if fallback is None else "full-reorder"
    commits = []
    for row, (path, layer, first, source) in enumerate(zip(slots, checked_layers, before, sources, strict=True)):
        places = list(range(first, first + len(path)))
        content = None
        if layer is not None and source is not None:
            written = _checksums(cache, row, places)
            content = CommitContent(source[0], written, layer, source[1], _prefix_checksum(cache, layer, row, first))
        commits.append(Commit(name, fallback, first, cache.committed_lengths[row], path, places, content))
    return commits


def _checksums(cache: TreeCache, row: int, places: list[int]) -> list[str]:
    """A digest a layer of keys and values at ``places``."""
    return digest_rows(cache.at(row, places))


def _prefix_checksum(cache: TreeCache, layer: int, row: int, length: int) -> str:
    return digest_tensors(cache.prefix(layer, row, length))
