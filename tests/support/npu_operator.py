"""An emulation of ``torch_npu.npu_fused_infer_attention_score`` on the CPU, from the vendor's documentation.

It refuses each call that breaks a documented constraint of half-precision attention without quantisation, paging or
rotation inside, and has the silent faults that users have reported, to be switched on: on hardware none of them raises
an error. What it computes is the documented formula in float32. It proves nothing about hardware.

Letters: B rows of the batch, N heads, Q query rows, K keys, D head width, T rows of all of a batch together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import torch

Fault = Literal["one-row-mask-ends-at-512", "tnd-without-mask-is-uniform", "one-row-ignores-masks", "masks-end-at-512"]
LAYOUTS = ("BNSD", "TND")  # those that are emulated, of the documented ones
MASK_DTYPES = (torch.bool, torch.int8, torch.uint8)
COMPRESSED = 2048  # rows and columns of the mask of sparse modes 2 to 4
REPORTED_TND_ROWS = 16  # per row of the batch, in a decoding engine on this operator
LOWEST = -1e30  # stands for a masked score: a row without any key is then the mean of all


class RefusedError(RuntimeError):
    """The call breaks a documented constraint."""


def require(holds: bool, constraint: str) -> None:
    """Refuses the call unless ``constraint`` holds."""
    if not holds:
        raise RefusedError(constraint)


@dataclass
class Operator:
    """The operator; ``calls`` counts them by layout and number of query rows."""

    faults: frozenset[Fault] = frozenset()
    calls: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        atten_mask: torch.Tensor | None = None,
        actual_seq_lengths: list[int] | None = None,
        actual_seq_lengths_kv: list[int] | None = None,
        num_heads: int = 1,
        scale: float = 1.0,
        input_layout: str = "BSH",
        num_key_value_heads: int = 0,
        sparse_mode: int = 0,
        inner_precise: int = 0,
        softmax_lse_flag: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kv_heads = num_key_value_heads or num_heads
        self._check_tensors(query, key, value, atten_mask)
        require(input_layout in LAYOUTS, f"input_layout {input_layout} is not emulated")
        require(num_heads % kv_heads == 0 and num_heads // kv_heads <= 64, "num_heads / num_key_value_heads is 1 to 64")
        require(sparse_mode != 9, "sparse_mode 9 is for MLA only")
        require(sparse_mode in range(5), "sparse_mode is 0 to 4")
        require(inner_precise in range(4), "inner_precise is 0 to 3")
        if input_layout == "TND":
            return self._tnd(
                query, key, value, mask=atten_mask, ends=actual_seq_lengths, kv_ends=actual_seq_lengths_kv, scale=scale,
                sparse_mode=sparse_mode,
            )  # fmt: skip
        require(query.shape[1] == num_heads, "BNSD: num_heads is the query's N")
        require(key.shape[1] == kv_heads, "BNSD: num_key_value_heads is the key's N")
        self._check_sizes(query, key)
        rows, keys = query.shape[2], key.shape[2]
        self.calls["BNSD", rows] += 1
        if rows == 1:
            require(inner_precise in (0, 1), "one query row: inner_precise is 0 or 1")
        masked = self._masked(atten_mask, query.shape[0], rows, keys=keys, sparse_mode=sparse_mode)
        output, lse = attend(query, key, value, masked=masked, scale=scale, repair=bool(inner_precise & 2))
        return output, lse if softmax_lse_flag else torch.zeros(1)

    def _check_tensors(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> None:
        require(query.dtype in (torch.float16, torch.bfloat16), "query is float16 or bfloat16")
        require(query.dtype == key.dtype == value.dtype, "query, key and value have one dtype")
        require(key.shape[:-1] == value.shape[:-1], "key and value have one shape")
        for tensor in (query, key, value):
            require(tensor.is_contiguous(), "tensors are contiguous")
        if mask is not None:
            require(mask.is_contiguous(), "tensors are contiguous")
            require(mask.dtype in MASK_DTYPES, "atten_mask is bool, int8 or uint8")

    def _check_sizes(self, query: torch.Tensor, key: torch.Tensor) -> None:
        num_rows, heads, rows, width = query.shape
        require(num_rows <= 65536, "B is at most 65536")
        require(heads <= 256, "N is at most 256")
        require(width <= 512, "D is at most 512")
        require(width % 16 == 0, "D is a multiple of 16")
        require(max(rows, key.shape[2]) <= (262144 if rows == 1 else 20971520), "S is too long")

    def _masked(
        self, mask: torch.Tensor | None, num_rows: int, rows: int, *, keys: int, sparse_mode: int
    ) -> torch.Tensor | None:
        """(B or 1, 1, Q, K) bool, True where masked, as the kernel takes the mask; None where nothing is."""
        if rows == 1:
            return self._masked_of_one_row(mask, num_rows, keys)
        require(not (sparse_mode == 1 and mask is None), "sparse_mode 1 needs a mask")
        if sparse_mode >= 2:
            require(
                mask is not None and mask.shape[-2:] == (COMPRESSED, COMPRESSED),
                "sparse_mode 2 to 4 needs the compressed mask of 2048 x 2048",
            )
            raise RefusedError("sparse_mode 2 to 4 is not emulated: no tree has such a mask")
        if mask is None:
            return None
        shapes = [(rows, keys), (num_rows, rows, keys), (1, rows, keys)]
        shapes += [(num_rows, 1, rows, keys), (1, 1, rows, keys)]
        require(tuple(mask.shape) in shapes, f"the mask's shape {list(mask.shape)} is none of {shapes}")
        full = mask.bool().reshape(-1, 1, rows, keys).clone()
        if "masks-end-at-512" in self.faults:
            full[..., 512:] = False
        return full

    def _masked_of_one_row(self, mask: torch.Tensor | None, num_rows: int, keys: int) -> torch.Tensor | None:
        """The kernel of one row has no sparse modes."""
        if mask is None or "one-row-ignores-masks" in self.faults:
            return None
        shapes = [(num_rows, keys), (num_rows, 1, keys), (num_rows, 1, 1, keys)]
        require(tuple(mask.shape) in shapes, f"one query row: the mask's shape {list(mask.shape)} is none of {shapes}")
        full = mask.bool().reshape(num_rows, 1, 1, keys).clone()
        if "one-row-mask-ends-at-512" in self.faults and mask.shape == (1, 1, 1, keys):
            full[..., 512:] = False
        return full

    def _tnd(
        self,
        query: torch.Tensor,  # (T, N, D)
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        mask: torch.Tensor | None,
        ends: list[int] | None,
        kv_ends: list[int] | None,
        scale: float,
        sparse_mode: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        require(
            (sparse_mode == 0 and mask is None) or (sparse_mode == 3 and mask is not None),
            "TND: sparse_mode 0 without a mask, or 3 with the compressed one",
        )
        require(mask is None, "TND with the causal mask is not emulated: no tree has such a mask")
        require(ends is not None and kv_ends is not None, "TND: actual_seq_lengths and actual_seq_lengths_kv are given")
        assert ends is not None
        assert kv_ends is not None
        require(ends == sorted(ends) and kv_ends == sorted(kv_ends), "TND: lengths are cumulative")
        require(query.dtype == torch.bfloat16, "TND: bfloat16 only")
        require(query.shape[1] == key.shape[1], "TND: as many key-value heads as query heads")
        require(query.shape[2] == 192, "TND without rotation inside: D is 192")
        outputs, sums = [], []
        for start, end, kv_start, kv_end in zip([0, *ends], ends, [0, *kv_ends], kv_ends, strict=False):
            require(end - start <= REPORTED_TND_ROWS, "TND: at most 16 query rows per row of the batch")
            self.calls["TND", end - start] += 1
            bounds = ((query, start, end), (key, kv_start, kv_end), (value, kv_start, kv_end))
            q, k, v = (tensor[first:last].transpose(0, 1)[None] for tensor, first, last in bounds)
            output, lse = attend(q, k, v, masked=None, scale=scale, repair=False)
            if "tnd-without-mask-is-uniform" in self.faults:
                output = v.float().mean(dim=2, keepdim=True).expand_as(q).to(q.dtype)
            outputs.append(output[0].transpose(0, 1))
            sums.append(lse[0].transpose(0, 1))
        return torch.cat(outputs), torch.cat(sums)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    masked: torch.Tensor | None,
    scale: float,
    repair: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The documented formula: the output (B, N, Q, D), and the log-sum-exp (B, N, Q, 1) in float32."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (t.float().repeat_interleave(groups, dim=1) for t in (key, value))
    scores = query.float() @ keys.transpose(-1, -2) * scale
    if masked is not None:
        scores = scores.masked_fill(masked, LOWEST)
    output = scores.softmax(-1) @ values
    if masked is not None and repair:
        output = output.masked_fill(masked.all(dim=-1, keepdim=True), 0)
    return output.to(query.dtype), scores.logsumexp(-1, keepdim=True)
