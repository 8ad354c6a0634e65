"""Ascend NPUs by torch_npu, which is imported here alone: without CANN, importing it breaks torch itself."""

from __future__ import annotations

import importlib

import torch

from specscope.engine.backends.accelerator import Accelerator
from specscope.tracer.errors import UsageError


class Npu(Accelerator):
    """Ascend devices."""

    def __init__(self) -> None:
        super().__init__("npu")

    def device(self, name: str) -> torch.device:
        """The device ``name``, once torch_npu is imported."""
        try:
            importlib.import_module("torch_npu")
        except ImportError:
            raise UsageError(f"got device {name}, which needs torch_npu and CANN: install specscope[npu]") from None
        return super().device(name)
