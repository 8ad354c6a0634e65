"""Ascend NPUs by torch_npu, which is imported here alone: without CANN, importing it breaks torch itself.

The attention is ``npu_fused_infer_attention_score``, called within what its documentation allows: half precision,
contiguous tensors, layout BNSD with a full mask. Layout TND takes no mask of a tree's shape, and ``sparse_mode`` 9 is
for latent attention (MLA) only. None of this has been run on an NPU: it was written from the vendor's documents, and is
tested against an emulation of the operator in ``tests/support/npu_operator.py``.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from specscope.engine.backends.accelerator import Accelerator
from specscope.engine.backends.kernels import Kernel
from specscope.engine.backends.two_part import Part, merge
from specscope.tracer.errors import UsageError

MAX_ROWS = 16  # query rows of one call with a mask over all keys; more go in two parts
FULL_MASK = 0  # sparse_mode: the mask that is given, and nothing implied
#: inner_precise: high precision; its second bit repairs rows that see no key, and is not allowed for a single row.
PRECISE, PRECISE_AND_REPAIRED = 0, 2
WIDTH_STEP = 16  # head widths are multiples of it


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """query (B, H, Q, W), key and value (B, G, S, W), mask (B or 1, 1, Q, S) True where seen, or None -> (B, H, Q, W).

    Raises:
        UsageError: for a head width that the operator does not take.
    """
    rows, num_keys, width = query.shape[2], key.shape[2], query.shape[3]
    if width % WIDTH_STEP:
        raise UsageError(f"got heads of width {width}, the NPU's attention requires a multiple of {WIDTH_STEP}")
    if mask is None:
        return _call(query, key, value, None, scale).output
    if rows == 1:
        # A single row runs another kernel, which is reported to ignore masks past 512 keys. Two rows do not.
        doubled = _call(query.expand(-1, -1, 2, -1), key, value, mask.expand(-1, -1, 2, -1), scale)
        return doubled.output[:, :, :1]
    if rows <= MAX_ROWS or num_keys == rows:
        return _call(query, key, value, mask, scale).output
    split = num_keys - rows
    before = _call(query, key[:, :, :split], value[:, :, :split], mask[..., :split], scale)
    behind = _call(query, key[:, :, split:], value[:, :, split:], mask[..., split:], scale)
    return merge(before, behind)


def _call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None, scale: float) -> Part:
    """One call of the operator; ``seen`` (B or 1, 1, Q, S) bool."""
    # The extension is there: the device that the tensors are on needs it.
    operator: Any = importlib.import_module("torch_npu").npu_fused_infer_attention_score
    output, logsumexp = operator(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        atten_mask=None if seen is None else (~seen).contiguous(),  # the operator masks where it is True
        num_heads=query.shape[1],
        num_key_value_heads=key.shape[1],
        scale=scale,  # the operator's default is 1
        input_layout="BNSD",
        sparse_mode=FULL_MASK,
        inner_precise=PRECISE if seen is None else PRECISE_AND_REPAIRED,
        softmax_lse_flag=seen is not None,
    )
    if seen is None:
        return Part(output, logsumexp)
    # What the operator says of a row that sees none of these keys is not documented: it weighs nothing.
    unseeing = ~seen.any(dim=-1, keepdim=True)
    return Part(output.masked_fill(unseeing, 0), logsumexp.masked_fill(unseeing, -torch.inf))


KERNEL = Kernel(
    name="npu-fused-infer",
    function=attention,
    origin="torch_npu's npu_fused_infer_attention_score",
    mask_form="visible",
    dtypes=frozenset({"float16", "bfloat16"}),
)


class Npu(Accelerator):
    """Ascend devices."""

    def __init__(self) -> None:
        super().__init__("npu", KERNEL)

    def device(self, name: str) -> torch.device:
        """The device ``name``, once torch_npu is imported."""
        try:
            importlib.import_module("torch_npu")
        except (ImportError, RuntimeError) as error:  # not installed, or CANN's libraries are missing
            reason = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
            raise UsageError(
                f"got device {name}, which needs torch_npu and CANN{reason}: install specscope[npu]"
            ) from None
        return super().device(name)
