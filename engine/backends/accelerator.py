"""Any device that torch knows by a name: ``cuda``, ``mps``, ``xpu``, or what an extension registered (PrivateUse1).

Nothing here depends on which it is: torch's module of the device is asked, and what it lacks is done without.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from specscope.engine.backends.base import SDPA, Memory
from specscope.engine.backends.graphs import Graphs
from specscope.engine.backends.kernels import Kernel
from specscope.tracer.errors import UsageError


class Accelerator:
    """Devices of one torch type, with scaled dot-product attention unless ``kernel`` is given."""

    captures = False

    def __init__(self, name: str, kernel: Kernel = SDPA) -> None:
        self.name = name
        self.kernel = kernel

    def device(self, name: str) -> torch.device:
        """The device ``name``, if torch has it and it is there."""
        there = self.devices()
        try:
            device = torch.device(name)
        except RuntimeError:  # torch knows no such type, or no such number
            device = None
        if device is None or not there or (device.index is not None and f"{self.name}:{device.index}" not in there):
            seen = f"only {', '.join(there)}" if there else f"no {self.name} device"
            raise UsageError(f"got device {name}, but this torch sees {seen}")
        return device

    def devices(self) -> list[str]:
        """``cuda:0``, ``cuda:1`` and so on."""
        module = self._module()
        if module is None or not getattr(module, "is_available", _is_available(self.name))():
            return []
        count = getattr(module, "device_count", None)
        return [f"{self.name}:{index}" for index in range(count() if count is not None else 1)]

    def describe(self, device: torch.device) -> str:
        """Its own name, or its type where it has none."""
        name = getattr(self._module(), "get_device_name", None)
        return str(name(device)) if name is not None else self.name

    def synchronise(self, device: torch.device) -> None:
        """Waits for the device; one that offers no waiting is taken to be done."""
        module = self._module()
        if self.name == "mps":
            torch.mps.synchronize()  # takes no device
        elif module is not None and hasattr(module, "synchronize"):
            module.synchronize(device)

    def memory(self, device: torch.device) -> Memory:
        """What torch has allocated on it, and its size where the device tells."""
        module = self._module()
        used = getattr(module, "memory_allocated", None)
        info = getattr(module, "mem_get_info", None)
        return Memory(int(used(device)) if used is not None else 0, int(info(device)[1]) if info is not None else None)

    def graphs(self, device: torch.device) -> Graphs | None:
        """None: that a device has graphs must be known of it."""
        return None

    def _module(self) -> ModuleType | None:
        try:
            module: ModuleType = torch.get_device_module(self.name)
        except (RuntimeError, AttributeError):  # torch was built without it
            return None
        return module


def _is_available(name: str) -> Callable[[], bool]:
    """Torch's module of mps does not say whether it is available; its backend does."""
    backend = getattr(torch.backends, name, None)
    available: Any = getattr(backend, "is_available", lambda: False)
    return lambda: bool(available())
