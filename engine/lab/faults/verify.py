"""Faults around the verify forward, F18, F26, F28, F31, F32: what it is given, what runs, what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from transformers import LogitsProcessorList

from specscope.engine.backends.attention import registered_name
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget, Places
from specscope.engine.loop.phases import ForwardInputs
from specscope.engine.tree.tensors import TreeTensors, additive_mask

Inputs = Callable[[TreeTensors, torch.dtype], ForwardInputs]


def _changing_inputs(target: FaultTarget, change: Callable[[TreeTensors, ForwardInputs], ForwardInputs]) -> FaultTarget:
    honest = target.phases.inputs
    return target.with_phases(inputs=lambda tensors, dtype: change(tensors, honest(tensors, dtype)))


# Buffers that a captured graph reads, and that are not filled again before it is replayed.


def _fitted(mask: torch.Tensor, width: int) -> torch.Tensor:
    """``mask`` (B, 1, P, S) with S cut or filled to ``width``; what is filled in is not seen."""
    missing = width - mask.shape[3]
    if missing <= 0:
        return mask[..., :width]
    return torch.nn.functional.pad(mask, (0, missing), value=-float("inf"))


def _stale_mask(target: FaultTarget) -> FaultTarget:
    last: list[torch.Tensor] = []

    def change(tensors: TreeTensors, given: ForwardInputs) -> ForwardInputs:
        honest_mask = given.mask
        mask = last.pop() if last else honest_mask
        last.append(honest_mask)
        return (
            given._replace(mask=_fitted(mask, honest_mask.shape[3]))
            if mask.shape[:3] == honest_mask.shape[:3]
            else given
        )

    return _changing_inputs(target, change)


def _stale_positions(target: FaultTarget) -> FaultTarget:
    last: list[torch.Tensor] = []

    def change(tensors: TreeTensors, given: ForwardInputs) -> ForwardInputs:
        positions = last.pop() if last else given.position_ids
        last.append(given.position_ids)
        return given._replace(position_ids=positions) if positions.shape == given.position_ids.shape else given

    return _changing_inputs(target, change)


def _stale_lengths(target: FaultTarget) -> FaultTarget:
    last: list[list[int]] = []

    def change(tensors: TreeTensors, given: ForwardInputs) -> ForwardInputs:
        lengths = last.pop() if last else tensors.committed_lengths
        last.append(tensors.committed_lengths)
        return _with_lengths(tensors, given, lengths)

    return _changing_inputs(target, change)


def _with_lengths(tensors: TreeTensors, given: ForwardInputs, lengths: list[int]) -> ForwardInputs:
    """Another committed length a row decides what the mask shows; the keys stand where they stand."""
    if len(lengths) != tensors.num_rows:
        return given
    mask = additive_mask(replace(tensors, committed_lengths=lengths), given.mask.dtype)
    return given._replace(mask=_fitted(mask, given.mask.shape[3]))


# Rows of a batch.


def _rows_of_tokens(target: FaultTarget) -> FaultTarget:
    return _changing_inputs(target, lambda tensors, given: given._replace(token_ids=given.token_ids.flip(0)))


def _rows_of_positions(target: FaultTarget) -> FaultTarget:
    return _changing_inputs(target, lambda tensors, given: given._replace(position_ids=given.position_ids.flip(0)))


def _rows_of_lengths(target: FaultTarget) -> FaultTarget:
    return _changing_inputs(
        target, lambda tensors, given: _with_lengths(tensors, given, tensors.committed_lengths[::-1])
    )


# Logits processors.


def _processed_a_row_off(target: FaultTarget) -> FaultTarget:
    honest = target.phases.processors

    def processors(
        row_processors: list[LogitsProcessorList | None],
        contexts: list[list[int]],
        tensors: TreeTensors,
        logits: torch.Tensor,
    ) -> torch.Tensor:
        return honest(row_processors, contexts, tensors, logits.roll(-1, dims=1)).roll(1, dims=1)

    return target.with_phases(processors=processors)


def _processed_twice(target: FaultTarget) -> FaultTarget:
    honest = target.phases.processors

    def processors(
        row_processors: list[LogitsProcessorList | None],
        contexts: list[list[int]],
        tensors: TreeTensors,
        logits: torch.Tensor,
    ) -> torch.Tensor:
        return honest(row_processors, contexts, tensors, honest(row_processors, contexts, tensors, logits))

    return target.with_phases(processors=processors)


# Which attention runs.


def _dispatching(attention: str) -> Callable[[FaultTarget], FaultTarget]:
    def change(target: FaultTarget) -> FaultTarget:
        target.models.teacher.attend_by(registered_name(attention))
        return target

    return change


def _boolean_mask(target: FaultTarget) -> FaultTarget:
    return _changing_inputs(target, lambda tensors, given: given._replace(mask=given.mask == 0))


_VERIFY: Places = (("verify", "argmax"), ("verify", "top_logits"))
_PREFIX: Places = (("tensors", "prefix_visible"), ("tensors", "mask"))
_GIVEN = "verify.input-digest"

VERIFY_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F18.mask",
        says="the forward still has the last step's mask",
        expect=Expectation(places=_PREFIX, invariant=_GIVEN),
        inject=_stale_mask,
    ),
    Fault(
        id="F18.positions",
        says="the forward still has the last step's positions",
        expect=Expectation(places=(("tensors", "positions"),), invariant=_GIVEN),
        inject=_stale_positions,
    ),
    Fault(
        id="F18.lengths",
        says="the forward still has the last step's committed lengths",
        expect=Expectation(places=_PREFIX, invariant=_GIVEN),
        inject=_stale_lengths,
    ),
    Fault(
        id="F26.tokens",
        says="token ids of the batch's rows change places",
        expect=Expectation(places=(("tensors", "token_ids"),), invariant="tensors.tokens-are-the-trees"),
        scenario="batch",
        inject=_rows_of_tokens,
    ),
    Fault(
        id="F26.positions",
        says="positions of the batch's rows change places",
        expect=Expectation(places=(("tensors", "positions"),), invariant="tensors.position-is-length-plus-depth"),
        scenario="batch",
        inject=_rows_of_positions,
    ),
    Fault(
        id="F26.lengths",
        says="committed lengths of the batch's rows change places",
        expect=Expectation(places=_PREFIX, invariant="tensors.prefix-visible"),
        scenario="batch",
        inject=_rows_of_lengths,
    ),
    Fault(
        id="F28.row",
        says="logits are processed with the path of the slot before",
        expect=Expectation(places=_VERIFY),
        scenario="processors",
        inject=_processed_a_row_off,
    ),
    Fault(
        id="F28.twice",
        says="logits are processed twice",
        expect=Expectation(places=_VERIFY),
        scenario="processors",
        inject=_processed_twice,
    ),
    Fault(
        id="F31.eager-is-fused",
        says="eager attention was asked for, and the fused one runs",
        expect=Expectation(places=(("verify", "dispatch"),), invariant="verify.dispatch"),
        scenario="eager-candidate",
        inject=_dispatching("fused"),
    ),
    Fault(
        id="F31.fused-is-eager",
        says="fused attention was asked for, and the eager one runs",
        expect=Expectation(places=(("verify", "dispatch"),), invariant="verify.dispatch"),
        inject=_dispatching("eager"),
    ),
    Fault(
        id="F32",
        says="eager attention adds a boolean mask",
        expect=Expectation(places=_VERIFY),
        scenario="eager-candidate",
        inject=_boolean_mask,
    ),
)
