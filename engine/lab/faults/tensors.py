"""Faults of the tensors that the verify forward takes, F15 to F17: mask, positions, indices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from specscope.engine.accept.greedy import Acceptance, elder_siblings
from specscope.engine.drafters.base import Draft
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget
from specscope.engine.loop.phases import AcceptInputs
from specscope.engine.tree.tensors import TreeTensors

WORD = 32  # columns that a mask row of one machine word can hold


def _changing_tensors(target: FaultTarget, change: Callable[[TreeTensors], TreeTensors]) -> FaultTarget:
    honest = target.phases.tensorize

    def tensorize(draft: Draft, committed_lengths: list[int], depth: int) -> TreeTensors:
        return change(honest(draft, committed_lengths, depth))

    return target.with_phases(tensorize=tensorize)


def _changing_mask(change: Callable[[TreeTensors], torch.Tensor]) -> Callable[[FaultTarget], FaultTarget]:
    return lambda target: _changing_tensors(target, lambda tensors: replace(tensors, visible=change(tensors)))


def _siblings_seen(tensors: TreeTensors) -> torch.Tensor:
    return tensors.visible | elder_siblings(tensors)


def _parent_missed(tensors: TreeTensors) -> torch.Tensor:
    """Without the parent's column, except for the root's, in every row."""
    columns = torch.arange(tensors.padded_slots, device=tensors.parents.device)
    inner = tensors.parents[:, :, None] > 0
    return tensors.visible & ~(inner & (columns == tensors.parents[:, :, None]))


def _transposed(tensors: TreeTensors) -> torch.Tensor:
    return tensors.visible.transpose(1, 2).contiguous()


def _folded(tensors: TreeTensors) -> torch.Tensor:
    """Columns after the first word set the bits of the first."""
    folded = tensors.visible.clone()
    for first in range(WORD, tensors.padded_slots, WORD):
        width = min(WORD, tensors.padded_slots - first)
        folded[:, :, :width] |= tensors.visible[:, :, first : first + width]
    folded[:, :, WORD:] = False
    return folded


def _stale(target: FaultTarget) -> FaultTarget:
    last: list[torch.Tensor] = []

    def change(tensors: TreeTensors) -> TreeTensors:
        visible = tensors.visible
        seen = last.pop() if last else visible
        last.append(visible)
        return replace(tensors, visible=seen if seen.shape == visible.shape else visible)

    return _changing_tensors(target, change)


def _positions_by_slot(target: FaultTarget) -> FaultTarget:
    def change(tensors: TreeTensors) -> TreeTensors:
        starts = tensors.position_ids[:, :1] - tensors.depths[:, :1]
        return replace(tensors, position_ids=starts + torch.arange(tensors.padded_slots, device=starts.device))

    return _changing_tensors(target, change)


def _negative_indices(target: FaultTarget) -> FaultTarget:
    honest = target.phases.accept

    def change(tensors: TreeTensors) -> TreeTensors:
        levels = torch.arange(tensors.ancestors.shape[1], device=tensors.depths.device)
        above_root = levels[:, None] > tensors.depths[:, None]  # (B, D + 1, P)
        visible = tensors.visible.clone()
        # A gather that does not mask the -1 takes the last entry for it.
        visible[:, :, -1] |= above_root.any(dim=1)
        return replace(tensors, ancestors=tensors.ancestors.masked_fill(above_root, -1), visible=visible)

    def accept(inputs: AcceptInputs) -> Acceptance:
        tree = inputs.tree
        return honest(inputs._replace(tree=replace(tree, ancestors=tree.ancestors.clamp(min=0))))

    return _changing_tensors(target, change).with_phases(accept=accept)


_MASK = Expectation(places=(("tensors", "mask"),), invariant="tensors.mask-is-ancestors")

TENSOR_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F15.sibling",
        says="mask: a slot sees its elder siblings",
        expect=_MASK,
        inject=_changing_mask(_siblings_seen),
    ),
    Fault(
        id="F15.ancestor",
        says="mask: a slot does not see its parent",
        expect=_MASK,
        inject=_changing_mask(_parent_missed),
    ),
    Fault(id="F15.stale", says="mask: it is that of the last step", expect=_MASK, inject=_stale),
    Fault(
        id="F15.transpose",
        says="mask: rows and columns change places",
        expect=_MASK,
        inject=_changing_mask(_transposed),
    ),
    Fault(
        id="F15.bit32",
        says="mask: columns from 32 on set the bits of the first 32",
        expect=_MASK,
        scenario="wide",
        inject=_changing_mask(_folded),
    ),
    Fault(
        id="F16",
        says="positions by slot instead of depth",
        expect=Expectation(places=(("tensors", "positions"),), invariant="tensors.position-is-length-plus-depth"),
        inject=_positions_by_slot,
    ),
    Fault(
        id="F17",
        says="missing ancestors are -1, and gathered as the last slot",
        expect=Expectation(places=(("tensors", "mask"),), invariant="tensors.index-in-range"),
        inject=_negative_indices,
    ),
)
