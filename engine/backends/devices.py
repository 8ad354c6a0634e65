"""Devices by name: which backend has them, and which are there."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

import torch

from specscope.engine.backends.accelerator import Accelerator
from specscope.engine.backends.base import Backend
from specscope.engine.backends.cpu import Cpu
from specscope.engine.backends.cuda import Cuda
from specscope.engine.backends.kernels import installed_backends
from specscope.engine.backends.npu import Npu
from specscope.schemas import Device
from specscope.tracer.errors import UsageError

#: The types that torch itself has accelerators of.
TORCH_TYPES = ("cuda", "mps", "xpu")


def backend_of(device_type: str) -> Backend:
    """The backend of a torch device type: an installed one, the engine's own, or torch's generic one."""
    installed = installed_backends()
    if device_type in installed:
        backend: Backend = installed[device_type]()
        return backend
    named: dict[str, Callable[[], Backend]] = {"cpu": Cpu, "cuda": Cuda, "npu": Npu}
    return named[device_type]() if device_type in named else Accelerator(device_type)


def resolve_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a CUDA device where there is one, else the CPU.

    Raises:
        UsageError: where the device is not there, saying what is.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return backend_of(name.partition(":")[0]).device(name)
    except UsageError as error:
        raise UsageError(f"{error}; there is {', '.join(present_devices())}") from None


def present_devices() -> list[str]:
    """Every device that can be named here. An NPU's extension is not imported for it."""
    types = ["cpu", *TORCH_TYPES, *installed_backends(), *_registered_types()]
    names = [device for device_type in dict.fromkeys(types) for device in backend_of(device_type).devices()]
    if find_spec("torch_npu") is not None and not hasattr(torch, "npu"):
        names.append("npu (torch_npu is installed)")
    return names


def _registered_types() -> list[str]:
    """The type that an extension has registered with torch, if one has."""
    name = str(torch._C._get_privateuse1_backend_name())
    return [name] if name != "privateuseone" and hasattr(torch, name) else []


def device_section(device: torch.device) -> Device:
    """What a trace and a profile say of ``device``."""
    on_cpu = device.type == "cpu"
    return Device(
        backend=device.type,
        name=backend_of(device.type).describe(device),
        num_threads=torch.get_num_threads() if on_cpu else None,
        instructions=cpu_instructions() if on_cpu else None,
    )


def cpu_instructions() -> dict[str, str]:
    """The instruction sets that torch's own kernels and oneDNN may use: other ones round otherwise."""
    instructions = {"torch": torch.backends.cpu.get_cpu_capability()}
    most = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return instructions | ({"onednn": most} if most else {})
