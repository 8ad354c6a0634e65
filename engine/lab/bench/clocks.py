"""Clocks to measure by: the time that passes, or what of it this process computed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from specscope.engine.backends.devices import backend_of
from specscope.engine.lab.bench.turns import Clock
from specscope.tracer.errors import UsageError


def clock_of(name: Clock, device: torch.device) -> Callable[[], int]:
    """Nanoseconds by the clock ``name``, once ``device`` has done what it was given.

    Raises:
        UsageError: for the processor's time of what another device computes.
    """
    if name == "processor" and device.type != "cpu":
        raise UsageError(f"got --clock processor on device {device}, which computes beside the processor: use wall")
    backend, now = backend_of(device.type), time.perf_counter_ns if name == "wall" else time.process_time_ns

    def read() -> int:
        backend.synchronise(device)
        return now()

    return read
