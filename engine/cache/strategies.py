"""The commit strategies by name. ``in-place`` is the one to use; the others are what papers and engines do.

- ``in-place``: the path is gathered inside the tail (``cache.InPlace``);
- ``fast-reorder``: a new buffer of the prefix as one slice and the path gathered (EAGLE-Pangu's prefix sharing);
- ``full-reorder``: a new buffer, every position gathered (``cache.FullReorder``), to which the two above fall back;
- ``replicate``: the step works on a deep copy, and the path is copied back (EAGLE-Pangu's branches).
"""

from __future__ import annotations

import torch

from specscope.engine.cache.buffer import (
    CommitStrategy,
    FullReorder,
    InPlace,
    TreeCache,
    ascending_objection,
)
from specscope.engine.cache.moves import gather_places, put_behind
from specscope.tracer.errors import UsageError


class FastReorder:
    """A new buffer: the prefix as one slice, and after it the path."""

    name = "fast-reorder"

    def branch(self, cache: TreeCache) -> TreeCache:
        """The cache itself."""
        return cache

    def keep(self, cache: TreeCache, branch: TreeCache, places: torch.Tensor) -> None:
        """One copy of the prefixes, one gather of the paths."""
        source, longest = branch.buffer, max(cache.committed_lengths)
        reordered = torch.zeros_like(source)
        reordered[:, :, :, :, :longest] = source[:, :, :, :, :longest]
        put_behind(reordered, cache.committed_lengths, gather_places(source, places))
        cache.replace_buffer(reordered)

    def objection(self, cache: TreeCache, slots: list[list[int]]) -> str | None:
        """It shares the prefix only with paths that go up from the root."""
        return ascending_objection(cache, slots)


class Replicate:
    """Every step works on a deep copy; the committed cache is written at the commit alone."""

    name = "replicate"

    def branch(self, cache: TreeCache) -> TreeCache:
        """A deep copy."""
        return cache.copy()

    def keep(self, cache: TreeCache, branch: TreeCache, places: torch.Tensor) -> None:
        """Copies the path from the branch."""
        kept = gather_places(branch.buffer, places)
        cache.grow_like(branch)
        put_behind(cache.buffer, cache.committed_lengths, kept)

    def objection(self, cache: TreeCache, slots: list[list[int]]) -> str | None:
        """None: it takes any order."""
        return None


STRATEGIES: dict[str, type[CommitStrategy]] = {
    "in-place": InPlace,
    "fast-reorder": FastReorder,
    "full-reorder": FullReorder,
    "replicate": Replicate,
}


def commit_strategy(name: str) -> CommitStrategy:
    """The strategy of that name.

    Raises:
        UsageError: where there is none.
    """
    if name not in STRATEGIES:
        raise UsageError(f"got cache strategy {name!r}, wanted one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]()
