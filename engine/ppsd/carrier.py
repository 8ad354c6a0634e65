"""What carries hidden states from stage to stage: a backend of ``torch.distributed``, by the devices of the stages.

Headers always travel through the host's memory by gloo, because each host reads them: epochs, stops, tokens. Hidden
states go along with them, or by themselves, from device to device. Pure: what this torch is built with is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from specscope.engine.ranks.group import HOST_CARRIER, HOST_KIND, carrier_of, group_backend
from specscope.tracer.errors import UsageError


class Carrier(NamedTuple):
    """What carries hidden states, and how."""

    name: str  # gloo, nccl or hccl
    is_staged: bool = False  # copied to the host's memory before they are sent, and from it where they arrive
    warning: str | None = None  # why it is not the one that such devices have

    @property
    def is_direct(self) -> bool:
        """Whether they go from device to device, apart from their header."""
        return self.name != HOST_CARRIER

    def group_backend(self, device_type: str) -> str:
        """What ``init_process_group`` is given: by torch's type of a tensor's device."""
        return group_backend(self.name, device_type)


def choose_carrier(
    asked: str | None, device_names: Sequence[str], *, is_built_with: Callable[[str], bool] | None = None
) -> Carrier:
    """The carrier between stages on the devices ``device_names``, one name a stage, all of one kind.

    Args:
        asked: gloo, nccl or hccl; None takes what such devices have.
        is_built_with: whether torch has a backend of that name; None asks torch.

    Raises:
        UsageError: where what was asked for cannot be, or torch lacks it.
    """
    kind = device_names[0].partition(":")[0]
    usual = carrier_of(kind)
    chosen = usual if asked is None else asked
    if chosen not in (usual, HOST_CARRIER):
        wanted = " or ".join(dict.fromkeys((usual, HOST_CARRIER)))
        raise UsageError(f"got --carrier {chosen} with stages on device {kind}, wanted {wanted}")
    warning = None
    num_devices = len(set(device_names))
    if chosen != HOST_CARRIER and num_devices < len(device_names):
        refusal = f"{chosen} refuses two ranks on one device: got {len(device_names)} stages, wanted at most "
        refusal += f"{num_devices}, the number of their devices"
        if asked is not None:
            raise UsageError(f"{refusal}; give fewer --stages, or --carrier {HOST_CARRIER}")
        warning = f"{refusal}: hidden states go through the host's memory, carried by {HOST_CARRIER}"
        chosen = HOST_CARRIER
    _check_built(chosen, kind, is_built_with or _is_built_with)
    return Carrier(chosen, is_staged=chosen == HOST_CARRIER and kind != HOST_KIND, warning=warning)


def _check_built(carrier: str, kind: str, is_built_with: Callable[[str], bool]) -> None:
    missing = next((name for name in (HOST_CARRIER, carrier) if not is_built_with(name)), None)
    if missing is not None:
        other = "" if missing == HOST_CARRIER else f"give --carrier {HOST_CARRIER}, "
        raise UsageError(
            f"got --engine ppsd with stages on device {kind}, whose messages {missing} carries, but torch "
            f"{torch.__version__} is built without {missing}: {other}install a torch that has it, or leave out "
            "--engine ppsd"
        )


def _is_built_with(name: str) -> bool:
    return dist.is_available() and dist.is_backend_available(name)
