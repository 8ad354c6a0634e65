"""What carries messages from rank to rank: the backend of ``torch.distributed``, by the device that stages are on."""

from __future__ import annotations

import torch
import torch.distributed as dist

from specscope.tracer.errors import UsageError

#: By torch's type of the device. A vendor's library must be built into torch, or registered by its extension.
CARRIERS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}


def carrier_of(device_type: str) -> str:
    """The backend for stages on devices of torch's ``device_type``.

    Raises:
        UsageError: where none is known for such devices.
    """
    if device_type not in CARRIERS:
        raise UsageError(
            f"got stages on device {device_type}, which nothing is known to carry messages between: "
            f"wanted {', '.join(CARRIERS)}"
        )
    return CARRIERS[device_type]


def usable_carrier(device_type: str) -> str:
    """As ``carrier_of``, once it is known that this torch has it.

    Raises:
        UsageError: where it has not, naming both.
    """
    carrier = carrier_of(device_type)
    if not (dist.is_available() and dist.is_backend_available(carrier)):
        raise UsageError(
            f"got --engine ppsd with stages on device {device_type}, whose messages {carrier} carries, but torch "
            f"{torch.__version__} is built without {carrier}: install a torch that has it, or leave out --engine ppsd"
        )
    return carrier
