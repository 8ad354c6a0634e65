"""Phase commit: the accepted rows become part of the committed prefix, and, where asked, the proof that they did."""

from __future__ import annotations

from dataclasses import dataclass

from specscope.engine.cache import TreeCache
from specscope.engine.digests import digest_rows, digest_tensors


@dataclass(frozen=True)
class CommitContent:
    """Checksums around a commit. Moving rows changes no bit of them, whatever the device's arithmetic."""

    source_checksums: list[str]  # per layer, before the move
    written_checksums: list[str]  # per layer, after it
    prefix_layer: int  # the layer whose committed prefix was looked at
    prefix_before: str
    prefix_after: str


@dataclass(frozen=True)
class Commit:
    """What a commit did."""

    strategy: str
    committed_before: int
    committed_after: int
    source_slots: list[int]
    destination_rows: list[int]
    content: CommitContent | None  # None without an observer


def commit_step(cache: TreeCache, slots: list[int], checked_layer: int | None) -> Commit:
    """Commits the tail's rows ``slots``; checksums them, and ``checked_layer``'s prefix, unless that is None."""
    before = cache.committed_length
    if checked_layer is None:
        rows = cache.commit_path(slots)
        return Commit(cache.strategy, before, cache.committed_length, slots, rows, None)
    sources = _row_checksums(cache, [before + slot for slot in slots])
    prefix_before = _prefix_checksum(cache, checked_layer, before)
    rows = cache.commit_path(slots)
    content = CommitContent(
        sources,
        _row_checksums(cache, rows),
        checked_layer,
        prefix_before,
        _prefix_checksum(cache, checked_layer, before),
    )
    return Commit(cache.strategy, before, cache.committed_length, slots, rows, content)


def _row_checksums(cache: TreeCache, rows: list[int]) -> list[str]:
    """A digest a layer of keys and values of ``rows``."""
    return digest_rows(cache.gather(rows))


def _prefix_checksum(cache: TreeCache, layer: int, length: int) -> str:
    return digest_tensors(cache.prefix(layer, length))
