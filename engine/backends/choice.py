"""Which attention runs: the kernel that was asked for, or the eager attention where the two differ."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import PreTrainedModel

from specscope.engine.backends.attention import ATTENTION, add_kernel
from specscope.engine.backends.base import SDPA
from specscope.engine.backends.devices import backend_of
from specscope.engine.backends.kernels import BUILT_IN, Kernel, find_kernel
from specscope.engine.backends.self_check import CaseOutcome, Heads, SelfCheck, self_check
from specscope.engine.digests import digest_file
from specscope.schemas.manifest import Kernel as KernelManifest
from specscope.schemas.manifest import SelfCheck as SelfCheckManifest
from specscope.tracer.errors import UsageError


def warn_in_python(text: str) -> None:
    """A warning of Python's, for programs that call the engine."""
    warnings.warn(text, stacklevel=2)


@dataclass(frozen=True, kw_only=True)
class ChosenAttention:
    """What computes attention, and why."""

    asked: str  # eager, fused, or a kernel's name
    kernel: Kernel | None  # None where eager attention was asked for
    check: SelfCheck | None = None  # None where there was nothing to check, or it was not to be

    @property
    def failure(self) -> CaseOutcome | None:
        """The first case in which the kernel differs from the eager attention."""
        return self.check.failures[0] if self.check is not None and self.check.failures else None

    @property
    def runs(self) -> str:
        """The name in ``ATTENTION`` of what runs."""
        return "eager" if self.kernel is None or self.failure is not None else self.kernel.name

    @property
    def difference(self) -> str | None:
        """In which case the kernel differs from the eager attention, and by how much; None where it does not."""
        failure = self.failure
        if failure is None or self.check is None:
            return None
        limit = self.check.limit
        how = failure.reason or f"error {failure.error:.2g}, limit {limit:.2g}"
        more = len(self.check.failures) - 1
        return (
            f"attention {self.asked} differs from the eager attention in the case {failure.case!r} ({how})"
            f"{f' and {more} more' if more else ''}"
        )

    def manifest(self) -> KernelManifest | None:
        """What the trace says of it; None of the eager attention."""
        if self.kernel is None:
            return None
        file = self.kernel.file if self.kernel is not SDPA else None
        return KernelManifest(
            name=self.kernel.name,
            origin=self.kernel.origin,
            file=file.name if file is not None else None,
            file_digest=digest_file(file) if file is not None else None,
            self_check=self._check_manifest(),
        )

    def _check_manifest(self) -> SelfCheckManifest:
        if self.check is None:
            return SelfCheckManifest(outcome="skipped")
        failure = self.failure
        if failure is None:
            return SelfCheckManifest(outcome="passed", num_cases=len(self.check.outcomes))
        return SelfCheckManifest(
            outcome="failed",
            num_cases=len(self.check.outcomes),
            failed_cases=[outcome.case for outcome in self.check.failures],
        )


def kernel_of(attention: str, device: torch.device) -> Kernel | None:
    """The kernel that ``attention`` names on ``device``, ready to be called by its name; None for ``eager``.

    Raises:
        UsageError: where there is none of that name.
    """
    if attention == "eager":
        return None
    kernel = backend_of(device.type).kernel if attention == "fused" else find_kernel(attention)
    if kernel is not SDPA:
        add_kernel(kernel)
    return kernel


def heads_of(config: Any) -> Heads:
    """The heads of a transformers configuration; those of the default where it does not state them."""
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else None)
    if not heads or not width:
        return Heads()
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return Heads(width, max(1, heads // kv_heads))


def checked(
    asked: str,
    kernel: Kernel | None,
    model: PreTrainedModel,
    *,
    check: bool = True,
    warn: Callable[[str], None] = warn_in_python,
) -> ChosenAttention:
    """``kernel`` compared with the eager attention, for a model's heads, device and dtype, unless ``check`` is off.

    Where the device's own differs, the eager attention runs in its place, and ``warn`` is told. What was compared once
    in this process is not compared again.

    Raises:
        UsageError: where a kernel that the user named differs: nobody shall judge it by what another one did.
    """
    if kernel is None or not check:
        return ChosenAttention(asked=asked, kernel=kernel)
    outcome = _self_check(kernel, heads_of(model.config), torch.device(model.device), model.dtype)
    chosen = ChosenAttention(asked=asked, kernel=kernel, check=outcome)
    if chosen.difference is None:
        return chosen
    if asked not in BUILT_IN:
        raise UsageError(
            f"{chosen.difference}: it was not run; --no-self-check (self_check=False) runs it all the same"
        )
    warn(
        f"{chosen.difference}: the eager attention runs instead; --no-self-check (self_check=False) runs it all the "
        "same"
    )
    return chosen


@cache
def _self_check(kernel: Kernel, heads: Heads, device: torch.device, dtype: torch.dtype) -> SelfCheck:
    name = str(dtype).removeprefix("torch.")
    if not kernel.takes(name):
        reason = f"takes {' and '.join(sorted(kernel.dtypes or ()))}, got {name}"
        return SelfCheck(outcomes=(CaseOutcome("the dtype", math.inf, reason),), limit=0.0)
    return self_check(ATTENTION[kernel.name], heads=heads, device=device, dtype=dtype)
