"""Faults of what lies in the teacher's cache between two steps, F34: nothing of a step is wrong, but what it left does
not stay as it was."""

from __future__ import annotations

from collections.abc import Callable

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import Commit, RowCustody
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget

LAYER = 1  # that is spoilt where one is; every model has two
Spoil = Callable[[torch.Tensor, Commit], None]


def _after_each_commit(spoil: Spoil) -> Callable[[FaultTarget], FaultTarget]:
    """``spoil`` gets a row's committed keys and values (L, 2, G, T, W), as a view, and what was committed last."""

    def inject(target: FaultTarget) -> FaultTarget:
        honest = target.phases.commit

        def commit(
            cache: TreeCache, branch: TreeCache, slots: list[list[int]], custody: list[RowCustody | None]
        ) -> list[Commit]:
            commits = honest(cache, branch, slots, custody)
            for row, committed in enumerate(commits):
                kept = cache.committed(row)
                if kept is not None:
                    spoil(kept, committed)
            return commits

        return target.with_phases(commit=commit)

    return inject


def _scaled(kept: torch.Tensor, committed: Commit) -> None:
    kept[LAYER, 0] *= 1.05


def _overwritten(kept: torch.Tensor, committed: Commit) -> None:
    kept[:, :, :, 0] = kept[:, :, :, -1]


def _layers_exchanged(kept: torch.Tensor, committed: Commit) -> None:
    kept[[0, LAYER]] = kept[[LAYER, 0]]


def _restored_too_early(kept: torch.Tensor, committed: Commit) -> None:
    """As if the rows came from a checkpoint of the step before, in which they were not yet written."""
    kept[:, :, :, committed.committed_before :] = 0


def _custody_fault(form: str, says: str, spoil: Spoil) -> Fault:
    return Fault(
        id=f"F34.{form}",
        says=says,
        expect=Expectation(
            places=(("verify", ""), ("accept", ""), ("commit", "prefix-kept")), invariant="commit.prefix-kept"
        ),
        inject=_after_each_commit(spoil),
        cache="dense",
    )


CUSTODY_FAULTS: tuple[Fault, ...] = (
    _custody_fault("scaled", "between steps, one layer's keys grow by a twentieth", _scaled),
    _custody_fault("overwritten", "between steps, the first position is overwritten by the last", _overwritten),
    _custody_fault("exchanged", "between steps, two layers change places", _layers_exchanged),
    _custody_fault("restored", "the cache is restored from a checkpoint one step too old", _restored_too_early),
)
