"""The attention paths by name and the log of which of them really ran.

``eager`` is the reference: explicit float32 softmax, no fused kernel. ``fused`` is torch's scaled dot-product
attention. Kernels of other backends and of users join them by ``add_kernel``. All take an additive mask and grouped
keys. All are registered with transformers, the mask function too (without one a mask is dropped silently); the engine
always passes a prepared four-dimensional mask. Transformers hands it to every layer as it is; a layer with a sliding
window says so at each call, and its mask is narrowed here, for every kernel alike.

Letters: B batch, H heads, G key-value heads, Q rows, S columns, W head width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from specscope.engine.backends.kernels import Kernel
from specscope.engine.backends.windows import Narrow, mask_within, narrow_mask
from specscope.tracer.errors import EngineError


class AttentionFunction(Protocol):
    """One attention path; letters as above."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        """query (B, H, Q, W), key and value (B, G, S, W), mask (B or 1, 1, Q, S) or None -> (B, H, Q, W)."""


class WindowNote(NamedTuple):
    """What a layer with a sliding window was called with."""

    layer: int
    size: int
    mask: torch.Tensor  # (B or 1, 1, Q, S) that its attention was given


class DispatchLog(Counter[str]):
    """Calls by what ran, and how many there were: to add them up at each call would cost more than to count them; and
    the windows of the layers that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls = 0
        self.windows: dict[int, WindowNote] = {}  # by layer

    def note(self, calls: Mapping[str, int], num_calls: int) -> None:
        """Counts ``calls``, which are so many."""
        self.update(calls)
        self.num_calls += num_calls


_LOG: ContextVar[DispatchLog | None] = ContextVar("dispatch log", default=None)


@contextmanager
def dispatch_log() -> Iterator[DispatchLog]:
    """Counts each attention call made inside by what ran, in this thread only; without it nothing is counted.

    Logs nest: a call counts in the innermost, and an outer log takes over what an inner one counted when that ends.
    """
    outer, log = _LOG.get(), DispatchLog()
    token = _LOG.set(log)
    try:
        yield log
    finally:
        _LOG.reset(token)
        if outer is not None:
            outer.note(log, log.num_calls)
            outer.windows |= log.windows


@contextmanager
def separate_log() -> Iterator[DispatchLog]:
    """The same, but an outer log learns nothing of what is counted inside."""
    log = DispatchLog()
    token = _LOG.set(log)
    try:
        yield log
    finally:
        _LOG.reset(token)


def count_calls(calls: DispatchLog) -> None:
    """Counts ``calls`` that a graph makes when it is replayed, where nothing of Python sees them.

    The masks noted lie in the graph's memory, and hold what the replay made of them.
    """
    log = _LOG.get()
    if log is not None:
        log.note(calls, calls.total())
        log.windows |= calls.windows


def _count(name: str) -> None:
    log = _LOG.get()
    if log is not None:
        log[name] += 1
        log.num_calls += 1


def eager_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """softmax(Q K^T scale + mask) V, the softmax in float32 at least.

    query (B, H, Q, W), key and value (B, G, S, W), mask (B or 1, 1, Q, S) -> (B, H, Q, W).
    """
    _count("eager")
    groups = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(groups, dim=1)
    value = value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-1, -2) * scale
    if mask is not None:
        scores = scores + mask
    softmax_dtype = torch.promote_types(query.dtype, torch.float32)
    return torch.softmax(scores, dim=-1, dtype=softmax_dtype).to(query.dtype) @ value


def fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """The same by the backend's scaled dot-product attention; shapes as in ``eager_attention``."""
    grouped = query.shape[1] != key.shape[1]
    if _LOG.get() is not None:
        choice = torch._fused_sdp_choice(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
        _count(_backend_name(choice))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)


@cache
def _backend_name(choice: int) -> str:
    """``sdpa-flash``, ``sdpa-math`` and so on."""
    return "sdpa-" + SDPBackend(choice).name.lower().removesuffix("_attention")


ATTENTION: dict[str, AttentionFunction] = {"eager": eager_attention, "fused": fused_attention}


def add_kernel(kernel: Kernel) -> AttentionFunction:
    """Makes ``kernel`` one of ``ATTENTION``.

    It is counted under its name, whatever it calls inside, and given the mask in the form that it takes. What it
    returns is refused where it does not have the query's shape and dtype.
    """

    def attention(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        _count(kernel.name)
        given = mask == 0 if mask is not None and kernel.mask_form == "visible" else mask
        silence = _LOG.set(None)
        try:
            output = kernel.function(query, key, value, given, scale=scale)
        finally:
            _LOG.reset(silence)
        if not isinstance(output, torch.Tensor) or output.shape != query.shape or output.dtype != query.dtype:
            raise EngineError(f"attention {kernel.name} returned {_shape(output)}, wanted {_shape(query)}")
        return output

    ATTENTION[kernel.name] = attention
    return attention


def _shape(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def _for_transformers(
    name: str,
    attention: AttentionFunction,
    narrow: Narrow,
) -> Callable[..., tuple[torch.Tensor, None]]:
    def forward(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float,
        sliding_window: int | None = None,
        **_: object,
    ) -> tuple[torch.Tensor, None]:
        log = _LOG.get()
        if sliding_window is not None and attention_mask is not None:
            attention_mask = mask_within(attention_mask, sliding_window, narrow)
            if log is not None:
                layer: Any = module.layer_idx
                log.windows[int(layer)] = WindowNote(int(layer), sliding_window, attention_mask)
        counted = log.num_calls if log is not None else 0
        # Some models view what they get: a strided tensor will not do.
        output = attention(query, key, value, attention_mask, scale=scaling).transpose(1, 2).contiguous()
        if log is not None and log.num_calls == counted:
            _count(name)  # put in place of a path by somebody who knows nothing of the log
        return output, None

    return forward


def _mask_as_given(*_: object, attention_mask: torch.Tensor | None = None, **__: object) -> torch.Tensor | None:
    return attention_mask


def registered_name(attention: str) -> str:
    """The name under which transformers knows the attention ``attention`` of ``ATTENTION``; registers it."""
    return register_attention(attention, ATTENTION[attention])


def register_attention(attention: str, function: AttentionFunction, narrow: Narrow = narrow_mask) -> str:
    """Makes ``function`` known to transformers; its name there. ``narrow`` makes the masks of sliding windows."""
    name = f"specscope_{attention}"
    AttentionInterface.register(name, _for_transformers(attention, function, narrow))
    AttentionMaskInterface.register(name, _mask_as_given)
    return name
