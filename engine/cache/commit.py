"""Phase commit: the accepted slots become part of the committed prefix, and, where asked, the proof that they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.custody import layer_sums


class RowCustody(NamedTuple):
    """What is known of a row's committed prefix before its commit."""

    sums: torch.Tensor  # (L,) position sums, as the step found it
    layer: int  # whose prefix is looked at again after the commit. They take turns: all of them would cost too much


@dataclass(frozen=True, kw_only=True)
class CommitContent:
    """Position sums around a row's commit. Moving positions changes no bit of them on any device."""

    sources: torch.Tensor  # (L,) of the rows that are kept, before the move
    written: torch.Tensor  # (L,) of the same, after it
    prefix: torch.Tensor  # (L,) of the committed prefix as the step found it
    prefix_layer: int  # the layer whose committed prefix was looked at again
    prefix_after: torch.Tensor  # (1,) what that came to


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


def commit_step(
    cache: TreeCache, branch: TreeCache, slots: list[list[int]], custody: list[RowCustody | None]
) -> list[Commit]:
    """Commits the tail positions ``slots`` of each row of ``branch``.

    Where a row's ``custody`` is not None, its sources, what was written and one layer's prefix are digested.
    """
    lengths = list(cache.committed_lengths)
    sources = [
        None if known is None else _sums_of_sources(branch, row, path, first=length)
        for row, (path, known, length) in enumerate(zip(slots, custody, lengths, strict=True))
    ]
    fallback = cache.commit_paths(branch, slots)
    name = cache.strategy.name if fallback is None else "full-reorder"
    return [
        Commit(
            strategy=name,
            fallback=fallback,
            committed_before=first,
            committed_after=cache.committed_lengths[row],
            source_slots=path,
            destination_rows=list(range(first, first + len(path))),
            content=None if known is None or kept is None else _content(cache, row, known, sources=kept, first=first),
        )
        for row, (path, known, kept, first) in enumerate(zip(slots, custody, sources, lengths, strict=True))
    ]


def prefix_sums(cache: TreeCache, row: int) -> torch.Tensor:
    """(L,) the position sum of each layer's committed keys and values of ``row``."""
    kept = cache.committed(row)
    return torch.zeros(len(cache.layer_tails), dtype=torch.int64) if kept is None else layer_sums(kept)


def _sums_of_sources(branch: TreeCache, row: int, path: list[int], *, first: int) -> torch.Tensor:
    """Of the rows to be kept, each counted where it is to go."""
    return layer_sums(branch.at(row, [first + slot for slot in path]), first)


def _content(cache: TreeCache, row: int, known: RowCustody, *, sources: torch.Tensor, first: int) -> CommitContent:
    """What lies in ``row`` after the commit, whose rows begin at ``first``."""
    return CommitContent(
        sources=sources,
        written=layer_sums(cache.committed_since(row, first), first),
        prefix=known.sums,
        prefix_layer=known.layer,
        prefix_after=layer_sums(cache.prefix(known.layer, row, first)[None]),
    )
