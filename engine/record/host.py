"""Tensors as the host sees them: where they lie there already, views; else copies, all of them packed into one, which
arrives when the host waits for the device next.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from specscope.engine.host import lies_on_host

Parts = TypeVar("Parts")
_ALIGNMENT = 8  # bytes: a packed tensor begins at a multiple, so that it can be viewed in its own dtype


def array(tensor: torch.Tensor) -> NDArray[Any]:
    """``tensor`` as an array: a view, unless it is of a half format, which numpy does not have, or elsewhere."""
    try:
        result: NDArray[Any] = tensor.numpy()
    except (TypeError, RuntimeError):  # a half format, a device, or a tensor that wants a gradient
        halves = tensor.is_floating_point() and tensor.dtype.itemsize < torch.float32.itemsize
        result = (tensor.float() if halves else tensor).detach().cpu().numpy()
    return result


def floats(values: NDArray[Any]) -> list[float]:
    """``values`` (R,) with the fewest digits that restore each float32 exactly; float64 as it is.

    orjson knows the shortest form of a float32, and is faster than formatting one by one.
    """
    if values.dtype == np.float64:
        return [float(v) for v in values.tolist()]
    if not np.isfinite(values).all():
        return [float(f"{v:.9g}") for v in values.tolist()]
    shortest: list[float] = orjson.loads(orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY))
    return shortest


def float_lists(values: list[NDArray[Any]]) -> list[list[float]]:
    """``floats`` of each, flattened, in one go: most of its cost is one of calls."""
    if not values:
        return []
    flat = floats(np.concatenate([part.ravel() for part in values]))
    ends = np.cumsum([part.size for part in values]).tolist()
    return [flat[end - part.size : end] for part, end in zip(values, ends, strict=True)]


def on_host(parts: Parts) -> Parts:
    """``parts``, a dataclass or named tuple, with every tensor in it on the host; itself, where they lie there.

    What is on a device comes in a single copy, which does not wait: it holds what was on the device when it was asked
    for, and may be read after the next wait for the device.
    """
    away: dict[int, torch.Tensor] = {}
    _collect(parts, away)
    if not away:
        return parts
    copies = dict(zip(away, copied_together(list(away.values())), strict=True))
    result: Parts = _exchanged(parts, copies)
    return result


def copied_together(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each of ``tensors``, which lie on one device, on the host."""
    pieces = []
    for tensor in tensors:
        piece = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        pieces.append(torch.nn.functional.pad(piece, (0, -len(piece) % _ALIGNMENT)))
    packed, copies, start = torch.cat(pieces).to("cpu", non_blocking=True), [], 0
    for tensor, piece in zip(tensors, pieces, strict=True):
        content = packed[start : start + tensor.numel() * tensor.element_size()]
        copies.append(content.view(tensor.dtype).view(tensor.shape))
        start += len(piece)
    return copies


def _collect(part: Any, away: dict[int, torch.Tensor]) -> None:
    if isinstance(part, torch.Tensor):
        if not lies_on_host(part):
            away[id(part)] = part
    else:
        for child in _children(part):
            _collect(child, away)


def _children(part: Any) -> list[Any]:
    if is_dataclass(part) and not isinstance(part, type):
        return [getattr(part, entry.name) for entry in fields(part)]
    return list(part) if isinstance(part, (list, tuple)) else []


def _exchanged(part: Any, copies: dict[int, torch.Tensor]) -> Any:
    if isinstance(part, torch.Tensor):
        return copies.get(id(part), part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{entry.name: _exchanged(getattr(part, entry.name), copies) for entry in fields(part)})
    if isinstance(part, (list, tuple)):
        parts = [_exchanged(child, copies) for child in part]
        return type(part)(*parts) if hasattr(part, "_fields") else type(part)(parts)
    return part
