"""Where a tensor lies, how it gets to a device, and with how many threads the host computes. On the host a tensor's
numbers can be read at once; from a device, reading them waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


def lies_on_host(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def sent(values: Sequence[Any], device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """``values``, numbers or lists of them, as a tensor on ``device``; as ``moved`` says, without a wait."""
    return moved(torch.tensor(values, dtype=dtype), device)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor``, which lies on the host, on ``device``: itself, where that is the host.

    On CUDA a copy from ordinary memory ends with a wait for everything that the device was given before. From pinned
    memory the copy is one more thing that it is given. What other devices do is left to torch.
    """
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Inside, torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
