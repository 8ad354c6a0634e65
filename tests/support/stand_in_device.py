"""An accelerator that is none: a package that brings the device kind ``card``, two of them, in the processor's memory.

A process finds it by its entry point, as a vendor's. It counts how often it is waited for, into the file that
``CARD_WAITS`` names.
"""

from __future__ import annotations

from pathlib import Path

MODULE = """
import os

import torch

from specscope.engine.backends.cpu import Cpu
from specscope.tracer.errors import UsageError


class Card(Cpu):
    name = "card"

    def device(self, name):
        if name not in ("card", *self.devices()):
            raise UsageError(f"got device {name}, but there is only {', '.join(self.devices())}")
        return torch.device("cpu")

    def devices(self):
        return [f"card:{number}" for number in range(int(os.environ.get("CARD_COUNT", "2")))]

    def synchronise(self, device):
        path = os.environ.get("CARD_WAITS")
        if path is not None:
            with open(f"{path}.{os.environ['RANK']}", "a") as file:
                file.write(".")
"""
ENTRY_POINTS = "[specscope.backends]\ndevice.card = card_backend:Card\n"
METADATA = "Metadata-Version: 2.1\nName: card-backend\nVersion: 1.0\n"


def install(folder: Path) -> Path:
    """Puts the package into ``folder``, which belongs on the path; returns it."""
    information = folder / "card_backend-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(METADATA)
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "card_backend.py").write_text(MODULE)
    return folder
