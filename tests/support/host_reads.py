"""Counts what makes the host wait for a tensor's content: on the host itself it would be free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class HostReads(TorchFunctionMode):
    """Counts what makes the host wait for a tensor's content, as if every tensor lay on a device.

    Two kinds lie on the host: those that numpy made, and copies that were asked for without waiting. Such a copy has
    arrived when the host has waited for something else since; to read it earlier counts as ``too early``.
    """

    WAITS = frozenset(
        {"tolist", "item", "cpu", "numpy", "nonzero", "masked_select", "unique", "__bool__", "__int__", "__float__",
         "__index__", "__len__ of a mask"}
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self._here: dict[int, torch.Tensor] = {}  # by address; kept, so that no address is used twice
        self._under_way: set[int] = set()

    def wait(self) -> None:
        """The host waits for all that the device was given."""
        self._under_way.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = getattr(func, "__name__", ""), kwargs or {}
        read = list(_addresses((args, given)))
        is_here = all(address in self._here for address in read) and _has_tensors((args, given))
        copied = name == "to" and given.get("non_blocking", False)
        if not is_here and self._count(name, args, copied=copied):
            self.wait()
        result = func(*args, **given)
        if is_here and any(address in self._under_way for address in read):
            # A view of what is under way reads nothing of it.
            self.seen["too early"] += name in self.WAITS or not set(_addresses(result)) <= set(read)
        if is_here or copied or name == "from_numpy":
            for tensor in _tensors(result):
                self._here[_address(tensor)] = tensor
                if copied:
                    self._under_way.add(_address(tensor))
        return result

    def _count(self, name: str, args: Any, *, copied: bool) -> bool:
        """Counts a call that waits; whether it does."""
        before = self.seen.total()
        if name in self.WAITS or (name == "to" and "cpu" in args and not copied):
            self.seen[name] += 1
        if name in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.seen["a mask as index"] += sum(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in index)
        if name == "repeat_interleave" and isinstance(args[1], torch.Tensor):
            self.seen[name] += 1
        return self.seen.total() > before


def _has_tensors(values: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(values))


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, torch.Tensor) and leaf.numel():
            yield leaf


def _address(tensor: torch.Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage().data_ptr()


def _addresses(values: Any) -> Iterator[int]:
    with torch._C.DisableTorchFunction():
        for tensor in _tensors(values):
            yield _address(tensor)
