"""What a backend is: what the engine must know of a kind of device, and nothing else."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from specscope.engine.backends.attention import fused_attention
from specscope.engine.backends.graphs import Graphs
from specscope.engine.backends.kernels import Kernel

#: Torch's scaled dot-product attention, which chooses among its own kernels.
SDPA = Kernel(name="fused", function=fused_attention, origin="torch's scaled dot-product attention")


class Memory(NamedTuple):
    """Memory in bytes."""

    used: int  # by this process
    total: int | None  # None where the device does not say


class Backend(Protocol):
    """One kind of device."""

    name: str  # torch's type of the device: cpu, cuda, npu
    kernel: Kernel  # what ``fused`` attention is on it
    captures: bool  # whether verify forwards are captured in graphs unless the user says otherwise

    def device(self, name: str) -> torch.device:
        """The device of that name, such as ``cuda:1``.

        Raises:
            UsageError: where it is not there, saying what is.
        """

    def devices(self) -> list[str]:
        """Names of the devices that are there; empty where the backend cannot be used."""

    def describe(self, device: torch.device) -> str:
        """What the device calls itself."""

    def synchronise(self, device: torch.device) -> None:
        """Waits until everything that was launched on it is done."""

    def memory(self, device: torch.device) -> Memory:
        """What this process uses of it, and what there is."""

    def graphs(self, device: torch.device) -> Graphs | None:
        """Its graphs; None where it has none."""
