"""Counts what makes the host wait for a tensor's content: on the host itself it would be free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HostReads(TorchFunctionMode):
    """Counts what makes the host wait for a tensor's content, as if every tensor lay on a device.

    Three kinds lie on the host: those that numpy made, those that a generator of the host drew, and copies that were
    asked for without waiting. Such a copy has arrived when the host has waited for something else since; to read it
    earlier counts as ``too early``. A copy to the device that is not asked for without waiting counts as ``sent``.
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
        if self._count_sent(name, args, given, is_here=is_here) or (
            not is_here and self._count(name, args, copied=copied)
        ):
            self.wait()
        result = func(*args, **given)
        if is_here and any(address in self._under_way for address in read):
            # A view of what is under way reads nothing of it.
            self.seen["too early"] += name in self.WAITS or not set(_addresses(result)) <= set(read)
        if is_here or copied or name == "from_numpy" or given.get("generator") is not None:
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

    def _count_sent(self, name: str, args: Any, given: dict[str, Any], *, is_here: bool) -> bool:
        """Counts numbers that go to the device in a copy that waits; whether they do."""
        before = self.seen.total()
        if name in ("tensor", "as_tensor", "asarray"):
            self.seen["sent"] += given.get("device") is not None
        if name == "to" and is_here and not given.get("non_blocking", False):
            self.seen["sent"] += any(isinstance(to, torch.device | torch.Tensor) for to in (*args[1:], *given.values()))
        if name in ("__getitem__", "__setitem__") and not is_here:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.seen["sent"] += sum(isinstance(part, list) for part in index)
        return self.seen.total() > before


class OperatorReads(TorchDispatchMode):
    """Counts the same one floor lower, where torch's own functions call each other: operators that read a number on the
    host, or whose result has a shape that depends on numbers."""

    NAMES = frozenset(
        {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim",
         "unique_consecutive", "bincount", "allclose", "repeat_interleave.Tensor", "repeat_interleave.self_Tensor"}
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masks = name in ("index", "index_put_", "index_put")
        if (
            name in self.NAMES
            or f"{name}.{func._overloadname}" in self.NAMES
            or (masks and any(i is not None and i.dtype == torch.bool for i in args[1]))
        ):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


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
