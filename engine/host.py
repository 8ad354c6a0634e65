"""Where a tensor lies. On the host its numbers can be read at once; from a device, reading them waits."""

from __future__ import annotations

import torch


def lies_on_host(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` can be read without waiting for a device."""
    return tensor.device.type == "cpu"
