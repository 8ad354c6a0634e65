"""Every fault that can be put in, by id."""

from __future__ import annotations

from dataclasses import replace

import torch

from specscope.engine.drafters.base import Draft
from specscope.engine.faults.base import Expectation, Fault, FaultTarget
from specscope.engine.tree_tensors import TreeTensors
from specscope.tracer.errors import UsageError


def _positions_by_slot(target: FaultTarget) -> FaultTarget:
    phases = target.phases

    def tensorize(draft: Draft, committed_lengths: list[int], depth: int) -> TreeTensors:
        tensors = phases.tensorize(draft, committed_lengths, depth)
        starts = tensors.position_ids[:, :1] - tensors.depths[:, :1]
        return replace(tensors, position_ids=starts + torch.arange(tensors.padded_slots, device=starts.device))

    return replace(target, phases=replace(phases, tensorize=tensorize, stop_on_violation=False))


def _mask_sees_a_sibling(target: FaultTarget) -> FaultTarget:
    phases = target.phases

    def tensorize(draft: Draft, committed_lengths: list[int], depth: int) -> TreeTensors:
        tensors = phases.tensorize(draft, committed_lengths, depth)
        visible = tensors.visible.clone()
        if tensors.padded_slots > 2:
            visible[:, 2, 1] = True
        return replace(tensors, visible=visible)

    return replace(target, phases=replace(phases, tensorize=tensorize, stop_on_violation=False))


FAULTS: dict[str, Fault] = {
    fault.id: fault
    for fault in (
        Fault(
            "F15",
            "mask bit wrong: slot 2 also sees slot 1",
            Expectation(places=(("tensors", "mask"),), invariant="tensors.mask-is-ancestors"),
            inject=_mask_sees_a_sibling,
        ),
        Fault(
            "F16",
            "positions by slot instead of depth",
            Expectation(places=(("tensors", "positions"),), invariant="tensors.position-is-length-plus-depth"),
            inject=_positions_by_slot,
        ),
    )
}


def find_fault(fault_id: str) -> Fault:
    """The fault of that id.

    Raises:
        UsageError: where there is none.
    """
    if fault_id not in FAULTS:
        raise UsageError(f"got fault {fault_id!r}, wanted one of {', '.join(FAULTS)}")
    return FAULTS[fault_id]
