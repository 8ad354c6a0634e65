"""Faults of sliding windows, F35: what a slot sees of its past, where its layer sees the last positions only."""

from __future__ import annotations

from collections.abc import Callable

import torch

from specscope.engine.backends.attention import ATTENTION, register_attention, registered_name
from specscope.engine.backends.windows import Narrow, hide, narrow_mask, visible_in
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget


def _narrowing(form: str, narrow: Narrow) -> Callable[[FaultTarget], FaultTarget]:
    def change(target: FaultTarget) -> FaultTarget:
        teacher = target.models.teacher
        attention = next((name for name in ATTENTION if registered_name(name) == teacher.attention_name), None)
        if attention is not None:
            teacher.attend_by(register_attention(f"{attention}_{form}", ATTENTION[attention], narrow))
        return target

    return change


def _by_slot(mask: torch.Tensor, window: int) -> torch.Tensor:
    """The last columns up to the query's own: of a tree's branches not the last positions."""
    rows, columns = mask.shape[-2:]
    of_query = torch.arange(columns - rows, columns, device=mask.device)[:, None]
    return hide(mask, torch.arange(columns, device=mask.device) <= of_query - window)


def _for_the_block(mask: torch.Tensor, window: int) -> torch.Tensor:
    """What is out of the first query's window is hidden from all, and nothing else. A prompt is taken in soundly."""
    if mask.shape[-2] == mask.shape[-1]:
        return narrow_mask(mask, window)
    return hide(mask, (visible_in(mask) & ~visible_in(narrow_mask(mask, window)))[..., :1, :])


_WINDOWS = Expectation(places=(("verify", "windows"),), invariant="verify.windows")
_NOT_RUN = "the demo teacher has no sliding window; the tests run it with one that has"

WINDOW_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F35.slot",
        says="sliding windows are cut by slot, not by position",
        expect=_WINDOWS,
        inject=_narrowing("window_by_slot", _by_slot),
        not_run=_NOT_RUN,
    ),
    Fault(
        id="F35.block",
        says="all slots of a tree have the root's sliding window",
        expect=_WINDOWS,
        inject=_narrowing("window_of_block", _for_the_block),
        not_run=_NOT_RUN,
    ),
)
