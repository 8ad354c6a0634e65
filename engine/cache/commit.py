"""Phase commit: the accepted slots become part of the committed prefix, and, where asked, the proof that they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.digests import digest_rows, digest_tensors


class CheckedLayer(NamedTuple):
    """The layer whose committed prefix is looked at in a step. They take turns: all of them would cost too much."""

    number: int
    length_since: int | None  # of its prefix after the step when its turn came last, or else after the prefill


@dataclass(frozen=True, kw_only=True)
class CommitContent:
    """Checksums around a row's commit. Moving positions changes no bit of them, whatever the device's arithmetic."""

    source_checksums: list[str]  # per layer, before the move
    written_checksums: list[str]  # per layer, after it
    prefix_layer: int  # the layer whose committed prefix was looked at
    prefix_since: str | None  # of the rows that it had when its turn came last, before the commit
    prefix_before: str
    prefix_after: str
    prefix_committed: str  # with the rows written


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What a commit did to one row."""

    strategy: str  # what was done
    fallback: str | None  # why that is not what was asked for
    committed_before: int
    committed_after: int
    source_slots: list[int]
    destination_rows: list[int]
    content: CommitContent | None  # None without an observer


class _Before(NamedTuple):
    """Checksums of one row before its commit."""

    sources: list[str]
    since: str | None
    prefix: str


def commit_step(
    cache: TreeCache, branch: TreeCache, slots: list[list[int]], checked_layers: list[CheckedLayer | None]
) -> list[Commit]:
    """Commits the tail positions ``slots`` of each row of ``branch``.

    Where a row's ``checked_layers`` is not None, its sources and that layer's prefix are checksummed around it.
    """
    lengths = list(cache.committed_lengths)
    before = [
        None if layer is None else _before(branch, row, layer, length=length, path=path)
        for row, (path, layer, length) in enumerate(zip(slots, checked_layers, lengths, strict=True))
    ]
    fallback = cache.commit_paths(branch, slots)
    name = cache.strategy.name if fallback is None else "full-reorder"
    commits = []
    for row, (path, layer, first, checked) in enumerate(zip(slots, checked_layers, lengths, before, strict=True)):
        places = list(range(first, first + len(path)))
        content = None
        if layer is not None and checked is not None:
            content = CommitContent(
                source_checksums=checked.sources,
                written_checksums=_checksums(cache, row, places),
                prefix_layer=layer.number,
                prefix_since=checked.since,
                prefix_before=checked.prefix,
                prefix_after=_prefix_checksum(cache, layer.number, row, first),
                prefix_committed=_prefix_checksum(cache, layer.number, row, first + len(path)),
            )
        commits.append(
            Commit(
                strategy=name,
                fallback=fallback,
                committed_before=first,
                committed_after=cache.committed_lengths[row],
                source_slots=path,
                destination_rows=places,
                content=content,
            )
        )
    return commits


def _before(branch: TreeCache, row: int, layer: CheckedLayer, length: int, path: list[int]) -> _Before:
    since = layer.length_since
    return _Before(
        sources=_checksums(branch, row, [length + slot for slot in path]),
        since=None if since is None else _prefix_checksum(branch, layer.number, row, since),
        prefix=_prefix_checksum(branch, layer.number, row, length),
    )


def digest_layers(cache: TreeCache, row: int) -> list[str]:
    """Of each layer's committed keys and values of ``row``, as ``CommitContent.prefix_committed``."""
    length = cache.committed_lengths[row]
    return [_prefix_checksum(cache, layer, row, length) for layer in range(len(cache.layer_tails))]


def _checksums(cache: TreeCache, row: int, places: list[int]) -> list[str]:
    """A digest a layer of keys and values at ``places``."""
    return digest_rows(cache.at(row, places))


def _prefix_checksum(cache: TreeCache, layer: int, row: int, length: int) -> str:
    return digest_tensors(cache.prefix(layer, row, length))
