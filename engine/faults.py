"""Deliberate faults, injected through the loop's seams; they show what the tool detects. Absent from honest runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from specscope.engine.decoding import Phases
from specscope.engine.drafters.base import Draft
from specscope.engine.tree_tensors import TreeTensors
from specscope.tracer.errors import UsageError


class Fault(NamedTuple):
    """One kind of bug that public engines have had."""

    id: str
    says: str
    inject: Callable[[Phases], Phases]


def _positions_by_slot(phases: Phases) -> Phases:
    def tensorize(draft: Draft, committed_lengths: list[int], depth: int) -> TreeTensors:
        tensors = phases.tensorize(draft, committed_lengths, depth)
        starts = tensors.position_ids[:, :1] - tensors.depths[:, :1]
        return replace(tensors, position_ids=starts + torch.arange(tensors.padded_slots, device=starts.device))

    return replace(phases, tensorize=tensorize, stop_on_violation=False)


def _mask_sees_a_sibling(phases: Phases) -> Phases:
    def tensorize(draft: Draft, committed_lengths: list[int], depth: int) -> TreeTensors:
        tensors = phases.tensorize(draft, committed_lengths, depth)
        visible = tensors.visible.clone()
        if tensors.padded_slots > 2:
            visible[:, 2, 1] = True
        return replace(tensors, visible=visible)

    return replace(phases, tensorize=tensorize, stop_on_violation=False)


FAULTS = {
    fault.id: fault
    for fault in (
        Fault("F15", "mask bit wrong: slot 2 also sees slot 1", _mask_sees_a_sibling),
        Fault("F16", "positions by slot instead of depth", _positions_by_slot),
    )
}


def inject(phases: Phases, fault_id: str) -> Phases:
    """``phases`` with the fault in.

    Raises:
        UsageError: for an unknown id.
    """
    if fault_id not in FAULTS:
        raise UsageError(f"got fault {fault_id!r}, wanted one of {', '.join(FAULTS)}")
    return FAULTS[fault_id].inject(phases)
