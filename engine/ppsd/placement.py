"""Which device each stage is on, and how a stage reaches its own: what is brought there, and when its work is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from specscope.engine.backends.base import Backend
from specscope.engine.backends.devices import backend_of, resolve_device


class StageDevice(NamedTuple):
    """The device of one stage."""

    name: str  # as --device could name it: cpu, cuda:1
    device: torch.device  # torch's
    backend: Backend

    def finish(self) -> None:
        """Waits until all that was given to it is done: a time that is taken afterwards is of finished work."""
        self.backend.synchronise(self.device)

    def finish_stream(self) -> None:
        """The same for the stream that computes: what the carrier has on streams of its own goes on beside."""
        torch.accelerator.current_stream(self.device).synchronize()

    def make_current(self) -> None:
        """What is put on a device of this kind without a number goes on this one, in this thread."""
        if self.device.index is not None:
            select = getattr(torch.get_device_module(self.device.type), "set_device", None)
            if select is not None:
                select(self.device.index)


def device_names(asked: str, present: Sequence[str], num_stages: int) -> list[str]:
    """The device of each stage: the one that ``asked`` names with its number, or those of the kind ``asked`` in turn.

    Args:
        present: the devices of that kind that are there, at least one.
    """
    if ":" in asked:
        return [asked] * num_stages
    return [present[number % len(present)] for number in range(num_stages)]


def place_stages(asked: str, num_stages: int) -> list[StageDevice]:
    """The device of each stage; ``auto`` takes the kind that one process would take.

    Raises:
        UsageError: where there is no such device, saying what there is.
    """
    first = resolve_device(asked)
    kind = first.type if asked == "auto" else asked
    backend = backend_of(kind.partition(":")[0])
    names = device_names(kind, backend.devices(), num_stages)
    return [StageDevice(name, resolve_device(name), backend) for name in names]


class Landing:
    """Memory of a device in which rows from the host arrive. Allocated once: what stood there has been read by then,
    because a stage's work is finished before it takes the next."""

    def __init__(self, max_rows: int, hidden_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._rows = torch.empty(1, max_rows, hidden_size, dtype=dtype, device=device)

    def bring(self, rows: torch.Tensor) -> torch.Tensor:
        """(1, P, H) of ``rows`` (1, P, H), on the device."""
        landed = self._rows[:, : rows.shape[1]]
        landed.copy_(rows)
        return landed
