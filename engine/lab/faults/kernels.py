"""Faults of the kernels, F19: numbers that are wrong by more than another order of summation explains.

Each is in the teacher where its attention is fused, and sleeps where it is eager: so two teachers with the same fault
in differ by it, no matter who compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from specscope.engine.backends.attention import AttentionFunction, fused_attention, register_attention, registered_name
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget
from specscope.engine.teacher.model import Teacher

LAYER = 3  # of the faults that sit in one layer
ERROR = 0.01  # share by which they are off: far above what rounding does in float32
SKIPPED_KEYS = slice(8, 16)  # the block that one of them leaves out
MASK_END = 512  # keys from this position on that one of them does not mask


def _is_fused(teacher: Teacher) -> bool:
    return teacher.attention_name == registered_name("fused")


def _in_one_layer(module_of: Callable[[Any], nn.Module]) -> Callable[[FaultTarget], FaultTarget]:
    def change(target: FaultTarget) -> FaultTarget:
        teacher = target.models.teacher

        def spoil(module: nn.Module, inputs: Any, output: Any) -> Any:
            if not _is_fused(teacher):
                return output
            if isinstance(output, tuple):
                return (output[0] * (1 + ERROR), *output[1:])
            return output * (1 + ERROR)

        module_of(teacher.layer(LAYER)).register_forward_hook(spoil)
        return target

    return change


def _attending(name: str, function: AttentionFunction) -> Callable[[FaultTarget], FaultTarget]:
    def change(target: FaultTarget) -> FaultTarget:
        teacher = target.models.teacher
        if _is_fused(teacher):
            teacher.attend_by(register_attention(name, function))
        return target

    return change


def _in_bfloat16(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    low = torch.bfloat16
    rounded = None if mask is None else mask.to(low)
    return fused_attention(query.to(low), key.to(low), value.to(low), mask=rounded, scale=scale).to(query.dtype)


def _without_a_block(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    if mask is not None and key.shape[2] >= SKIPPED_KEYS.stop:
        mask = mask.clone()
        mask[..., SKIPPED_KEYS] = -float("inf")
    return fused_attention(query, key, value, mask=mask, scale=scale)


def _mask_ends(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    if mask is not None:
        mask = mask.clone()
        mask[..., MASK_END:] = 0
    return fused_attention(query, key, value, mask=mask, scale=scale)


_VERIFY = Expectation(places=(("verify", ""),))

KERNEL_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F19.attention",
        says=f"the attention of layer {LAYER} is {ERROR:.0%} too large",
        expect=_VERIFY,
        inject=_in_one_layer(lambda layer: layer.self_attn),
    ),
    Fault(
        id="F19.mlp",
        says=f"the feed-forward block of layer {LAYER} is {ERROR:.0%} too large",
        expect=_VERIFY,
        inject=_in_one_layer(lambda layer: layer.mlp),
    ),
    Fault(
        id="F19.norm",
        says=f"the norm before the attention of layer {LAYER} is {ERROR:.0%} too large",
        expect=_VERIFY,
        inject=_in_one_layer(lambda layer: layer.input_layernorm),
    ),
    Fault(
        id="F19.bf16",
        says="attention is summed in bfloat16",
        expect=_VERIFY,
        inject=_attending("fused_bf16", _in_bfloat16),
        is_half_already=True,
    ),
    Fault(
        id="F19.block",
        says=f"attention leaves out the keys {SKIPPED_KEYS.start} to {SKIPPED_KEYS.stop - 1}",
        expect=_VERIFY,
        inject=_attending("fused_block", _without_a_block),
    ),
    Fault(
        id="F19.mask512",
        says=f"attention masks no key from position {MASK_END} on",
        expect=_VERIFY,
        scenario="long",
        inject=_attending("fused_mask512", _mask_ends),
    ),
)
