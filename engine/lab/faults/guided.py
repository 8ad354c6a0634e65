"""Faults of guided decoding, F37: which slot a mask goes to, how far a grammar goes on, and how far it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from specscope.engine.guided.grammar import is_installed
from specscope.engine.guided.guide import Guide
from specscope.engine.guided.walk import SlotMasks
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget
from specscope.engine.loop.stopping import StopDecision

WITHOUT_LIBRARY = None if is_installed() else "guided decoding needs the extra guided"


def _a_row_off(target: FaultTarget) -> FaultTarget:
    honest = target.phases.forbid

    def forbid(logits: torch.Tensor, masks: Sequence[SlotMasks | None]) -> torch.Tensor:
        moved = [
            None if of_row is None else replace(of_row, allowed=np.roll(of_row.allowed, 1, axis=0)) for of_row in masks
        ]
        return honest(logits, moved)

    return target.with_phases(forbid=forbid)


def _past_the_end(target: FaultTarget) -> FaultTarget:
    def advance(guide: Guide, decision: StopDecision) -> int:
        return guide.take_all(decision.emitted)

    return target.with_phases(advance=advance)


def _one_too_few_back(target: FaultTarget) -> FaultTarget:
    honest = target.phases.walk

    def walk(guide: Guide, tokens: list[int], parents: list[int]) -> SlotMasks:
        masks = honest(guide, tokens, parents)
        below = [slot for slot in masks.slots if slot and parents[slot] == 0]
        guide.take_all([tokens[slot] for slot in below[-1:]])
        return replace(masks, returned=guide.state())

    return target.with_phases(walk=walk)


GUIDED_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F37.row",
        says="each slot's logits are masked by what the grammar allows at the slot before",
        expect=Expectation(places=(("verify", "guided.applied"),), invariant="guided.masks-applied"),
        scenario="guided",
        inject=_a_row_off,
        not_run=WITHOUT_LIBRARY,
    ),
    Fault(
        id="F37.past",
        says="the grammar takes in what lies after the stop",
        expect=Expectation(places=(("stop", "guided.after"),), invariant="guided.advances"),
        scenario="guided",
        inject=_past_the_end,
        not_run=WITHOUT_LIBRARY,
    ),
    Fault(
        id="F37.back",
        says="the grammar comes back from the tree by one token too few",
        expect=Expectation(places=(("verify", "guided.returned"),), invariant="guided.rolled-back"),
        scenario="guided",
        inject=_one_too_few_back,
        not_run=WITHOUT_LIBRARY,
    ),
)
