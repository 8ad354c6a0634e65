"""The host's own processor: torch's scaled dot-product attention, and nothing to wait for."""

from __future__ import annotations

import os
import platform
import resource
import sys

import torch

from specscope.engine.backends.base import SDPA, Memory
from specscope.engine.backends.graphs import EMULATED, Graphs
from specscope.tracer.errors import UsageError


class Cpu:
    """There is one, and everything on it is done when its call returns."""

    name = "cpu"
    kernel = SDPA
    captures = False  # an emulated graph is slower than none

    def device(self, name: str) -> torch.device:
        """``cpu``; a number after it would say nothing."""
        if name != "cpu":
            raise UsageError(f"got device {name}, wanted cpu, without a number")
        return torch.device("cpu")

    def devices(self) -> list[str]:
        """Itself."""
        return ["cpu"]

    def describe(self, device: torch.device) -> str:
        """Its architecture, such as ``x86_64``."""
        return platform.machine()

    def synchronise(self, device: torch.device) -> None:
        """Nothing is outstanding."""

    def memory(self, device: torch.device) -> Memory:
        """The process's peak, and the machine's memory."""
        unit = 1 if sys.platform == "darwin" else 1024
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return Memory(used, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))

    def graphs(self, device: torch.device) -> Graphs:
        """Emulated ones, to look for what goes wrong with a device's."""
        return EMULATED
