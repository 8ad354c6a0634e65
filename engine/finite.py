"""Weights that are no numbers: a model with one runs on and says nothing, so it is refused where it is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from specscope.tracer.errors import UsageError


def refuse_nonfinite(model: nn.Module, folder: Path) -> None:
    """Refuses a model that holds NaN or infinity, as it was loaded from ``folder``.

    Raises:
        UsageError: naming the tensor and, where it can be found there, its file.
    """
    for name, tensor in model.state_dict().items():
        if is_finite(tensor):
            continue
        narrow = f"(finite in its files, if it has any: {tensor.dtype} may be too narrow)"
        place = _place(folder) or f"{name} of {folder} {narrow}"
        raise UsageError(
            f"{place} holds NaN or infinity, so every score after it is worthless: get the weights anew, choose "
            "another dtype, or pass --allow-nonfinite (allow_nonfinite=True in Python) to record it all the same"
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every value is a number. Reads the tensor once and makes no second one of its size."""
    if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
        return True
    if tensor.dtype.itemsize == 1:  # the smallest types know no minimum
        tensor = tensor.float()
    bounds = torch.stack(list(torch.aminmax(tensor.detach())))  # NaN, where one of them is
    return bool(torch.isfinite(bounds).all())


def _place(folder: Path) -> str | None:
    """The first tensor in the folder's files that is not finite, by the name that it has there; None where all are."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - it is no mapping
                    if not is_finite(stored.get_tensor(name)):
                        return f"{name} in {file}"
        except (OSError, SafetensorError):
            continue
    return None
