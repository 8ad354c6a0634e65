"""Graphs: work that is captured once and replayed on the same memory, with nothing of Python in between.

What a replay reads and writes lies where it lay at the capture. So anyone who replays writes the new inputs into the
old tensors first: a tensor that is not refreshed still holds the last replay's numbers, and nothing says so.

``EmulatedGraph`` behaves in this way on any device, for machines that have none: every operation on
tensors is written down, and run again on the tensors that it had. It is slow, and made for finding bugs. What reads a
tensor past torch's operations, as ``numpy`` and ``tolist`` do on the host, is neither written down nor refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from specscope.tracer.errors import UsageError

if TYPE_CHECKING:
    from specscope.engine.backends.base import Backend

Result = TypeVar("Result")

#: What a device refuses while it captures: the host would have to wait for a number, or bring one.
_REFUSED = {
    "aten::_local_scalar_dense": "reads a number on the host",
    "aten::item": "reads a number on the host",
    "aten::is_nonzero": "reads a number on the host",
    "aten::nonzero": "has a shape that depends on numbers",
    "aten::masked_select": "has a shape that depends on numbers",
    "aten::lift_fresh": "brings numbers from the host",
}


class CaptureError(RuntimeError):
    """Work that cannot be captured."""


class Graph(Protocol):
    """Work on tensors that was captured once."""

    def capture(self, work: Callable[[], Result]) -> Result:
        """Captures ``work``; what it returns holds the work's numbers after each replay, and not before the first.

        Raises:
            RuntimeError: where the device cannot capture it.
        """

    def replay(self) -> None:
        """Does the work once more, on the memory that it was captured with."""


class Graphs(NamedTuple):
    """The graphs of a device."""

    kind: str  # as a manifest names them
    new: Callable[[], Graph]  # makes an empty one


class _Operation(NamedTuple):
    """A call that was written down."""

    function: Any  # torch's overload
    args: Any
    kwargs: dict[str, Any]
    outputs: list[Any]  # the leaves of what it gave

    def run(self) -> None:
        """Runs it again, and leaves what it gives where it lay before."""
        for before, now in zip(self.outputs, tree_leaves(self.function(*self.args, **self.kwargs)), strict=True):
            # A view, or what was changed in place, is there already.
            if isinstance(before, torch.Tensor) and before.data_ptr() != now.data_ptr():
                before.copy_(now)


class _Notes(TorchDispatchMode):
    """Writes every operation down while it runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.operations: list[_Operation] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        reason = _REFUSED.get(name)
        if name == "aten::index" and any(index is not None and index.dtype == torch.bool for index in args[1]):
            reason = "has a shape that depends on numbers"
        if reason is not None:
            raise CaptureError(f"{name} cannot be captured: it {reason}")
        given = kwargs or {}
        result = function(*args, **given)
        self.operations.append(_Operation(function, args, given, tree_leaves(result)))
        return result


class EmulatedGraph:
    """Replays the operations that ran at the capture, one by one."""

    def __init__(self) -> None:
        self._operations: list[_Operation] = []

    def capture(self, work: Callable[[], Result]) -> Result:
        """Runs ``work``, as a device would not, and writes its operations down.

        Raises:
            CaptureError: where it does what a device cannot capture.
        """
        with _Notes() as notes:
            result = work()
        self._operations = notes.operations
        return result

    def replay(self) -> None:
        """Runs the operations again."""
        for operation in self._operations:
            operation.run()


@dataclass(frozen=True, kw_only=True)
class GraphPolicy:
    """How a run's forwards are captured."""

    graphs: Graphs
    check: bool = True  # compare the first replay of each graph with the same forward uncaptured
    warn: Callable[[str], None]  # told where a forward cannot be captured


def choose_graphs(
    asked: Literal["auto", "on", "off"],
    backend: Backend,
    device: torch.device,
    *,
    check: bool,
    warn: Callable[[str], None],
) -> GraphPolicy | None:
    """What ``asked`` (``auto``, ``on`` or ``off``) comes to on a device; None where nothing is captured.

    Raises:
        UsageError: where graphs are asked for on a device that has none.
    """
    if asked == "off" or (asked == "auto" and not backend.captures):
        return None
    graphs = backend.graphs(device)
    if graphs is None:
        raise UsageError(f"got --graph on device {device}, whose backend captures no graphs: drop it")
    return GraphPolicy(graphs=graphs, check=check, warn=warn)


EMULATED = Graphs("emulated", EmulatedGraph)
