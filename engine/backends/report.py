"""What a machine would run and why, in facts: what ``specscope doctor`` prints."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from specscope.engine.backends.attention import ATTENTION
from specscope.engine.backends.choice import kernel_of
from specscope.engine.backends.devices import TORCH_TYPES, backend_of, resolve_device
from specscope.engine.backends.kernels import Kernel, installed_backends
from specscope.engine.backends.self_check import Heads, SelfCheck, self_check

CHECKED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class DeviceFacts(NamedTuple):
    """One device."""

    name: str
    description: str
    memory_total: int | None  # bytes


class CheckFacts(NamedTuple):
    """A kernel in one dtype."""

    dtype: str
    check: SelfCheck
    seconds: float


class AttentionFacts(NamedTuple):
    """What would run on one device."""

    device: str
    kernel: Kernel | None  # None: eager
    checks: list[CheckFacts]


def list_devices() -> list[DeviceFacts]:
    """Every device that torch sees."""
    facts = []
    for device_type in dict.fromkeys(["cpu", *TORCH_TYPES, *installed_backends()]):
        backend = backend_of(device_type)
        for name in backend.devices():
            device = backend.device(name)
            facts.append(DeviceFacts(name, backend.describe(device), backend.memory(device).total))
    return facts


def examine(device_name: str, attention: str) -> AttentionFacts:
    """Compares what ``attention`` means on that device with the eager attention, in every dtype that it takes.

    Raises:
        UsageError: where there is no such device, or no such kernel.
    """
    device = resolve_device(device_name)
    kernel = kernel_of(attention, device)
    backend, checks = backend_of(device.type), []
    for dtype in CHECKED_DTYPES if kernel is not None else ():
        assert kernel is not None
        name = str(dtype).removeprefix("torch.")
        if not kernel.takes(name):
            continue
        start = time.perf_counter()
        check = self_check(ATTENTION[kernel.name], heads=Heads(group=4), device=device, dtype=dtype)
        backend.synchronise(device)
        checks.append(CheckFacts(name, check, time.perf_counter() - start))
    return AttentionFacts(str(device), kernel, checks)
