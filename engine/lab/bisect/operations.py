"""The operations of a teacher's forward by name: captured where they run, and run again on another one's inputs.

Captured in place, within the verify forward of the very step, they tell what a forward afterwards cannot: what the
batch, a hand-over or a buffer that was not filled again made of them.

Parts that a model has beside those that have a name are not looked at one by one; they show in the layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from specscope.engine.accept.greedy import Acceptance
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.loop.phases import AcceptInputs, ForwardInputs, Phases
from specscope.engine.teacher.model import Teacher, cache_argument
from specscope.engine.teacher.parts import BEFORE as BEFORE
from specscope.engine.teacher.parts import BEHIND as BEHIND
from specscope.engine.teacher.parts import IN_LAYER as IN_LAYER
from specscope.engine.teacher.parts import LAYER_OUTPUT as LAYER_OUTPUT
from specscope.engine.teacher.parts import model_parts
from specscope.engine.tree.tensors import TreeTensors


class Operation(NamedTuple):
    """One operation of the forward."""

    layer: int | None  # None before and after the layers, and in a drafter
    name: str
    level: int | None = None  # of a drafter: which of its forwards, from 1

    def __str__(self) -> str:
        if self.level is not None:
            return f"draft level {self.level} {self.name}"
        return self.name if self.layer is None else f"layer {self.layer} {self.name}"


@dataclass(frozen=True)
class Captured:
    """What one operation was fed and gave, on the host."""

    fed: torch.Tensor  # (1, P, ...)
    gave: torch.Tensor  # (1, P, ...); cosines and sines together, where it is the rotation
    is_all: bool = True  # whether what it was fed is all that it was given


Captures = dict[Operation, Captured]
Put = Callable[[Captured], None]


class Parts:
    """A teacher's modules by operation.

    Raises:
        UsageError: where the model is not laid out like the ones whose names are known.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        named = model_parts(teacher, range(teacher.num_layers))
        self.modules = {Operation(part.layer, part.name): module for part, module in named.items()}

    def in_layer(self, number: int) -> dict[Operation, nn.Module]:
        """The operations of one layer, its output last."""
        return {operation: module for operation, module in self.modules.items() if operation.layer == number}

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return self.teacher.num_layers


@torch.inference_mode()
def run_forward(teacher: Teacher, given: ForwardInputs, cache: TreeCache) -> torch.Tensor:
    """Logits (1, P, V) of one whole forward after what ``cache`` holds; its tail is dropped again."""
    logits = teacher.forward(given.token_ids, given.position_ids, given.mask, cache=cache, feature_layers=()).logits
    cache.drop_tail()
    return logits.cpu()


class Forward(NamedTuple):
    """One whole forward, on the host."""

    captures: Captures
    logits: torch.Tensor  # (1, P, V)


def capture(teacher: Teacher, modules: dict[Operation, nn.Module], given: ForwardInputs, cache: TreeCache) -> Forward:
    """What every operation of ``modules`` is fed and gives in one whole forward after what ``cache`` holds."""
    captures: Captures = {}
    with ExitStack() as stack:
        for operation, module in modules.items():
            stack.enter_context(watched(module, _keeper(captures, operation)))
        logits = run_forward(teacher, given, cache)
    return Forward(captures, logits)


class InPlace:
    """Keeps what a teacher's operations are fed and give within the verify forward of a step, and nowhere else: a
    drafter may run them, too.

    Args:
        modules: of the operations.
    """

    def __init__(self, modules: dict[Operation, nn.Module]) -> None:
        self._modules, self._found, self.is_open = modules, Captures(), False

    def within(self, phases: Phases) -> Phases:
        """``phases`` that tell where the forward begins and ends."""

        def inputs(tensors: TreeTensors, dtype: torch.dtype) -> ForwardInputs:
            given = phases.inputs(tensors, dtype)
            self._found.clear()
            self.is_open = True
            return given

        def accept(asked: AcceptInputs) -> Acceptance:
            self.is_open = False
            return phases.accept(asked)

        return replace(phases, inputs=inputs, accept=accept)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the forwards are watched."""
        with ExitStack() as stack:
            for operation, module in self._modules.items():
                stack.enter_context(watched(module, self._put(operation)))
            yield

    def of_row(self, row: int, num_slots: int) -> Captures:
        """What was kept of the real slots of one row of the batch."""
        return {operation: _row_of(operation, value, row, num_slots) for operation, value in self._found.items()}

    def _put(self, operation: Operation) -> Put:
        def put(value: Captured) -> None:
            if self.is_open:
                self._found[operation] = value

        return put


def _row_of(operation: Operation, value: Captured, row: int, num_slots: int) -> Captured:
    rows = slice(row, row + 1)
    gave = value.gave[:, rows, :num_slots] if operation.name == "rotation" else value.gave[rows, :num_slots]
    return replace(value, fed=value.fed[rows, :num_slots], gave=gave)


@torch.inference_mode()
def run_layer(parts: Parts, number: int, captures: Captures, given: ForwardInputs, cache: TreeCache) -> Captures:
    """What the operations of layer ``number`` give, each fed what ``captures`` say of it; the tail is dropped again.

    Each is fed the other side's own input, and not what the one before it made of that: so an operation that is off
    shows once, in itself.
    """
    kept: Captures = {}
    modules = parts.in_layer(number)
    whole = Operation(number, LAYER_OUTPUT)
    with ExitStack() as stack:
        for operation, module in modules.items():
            if operation == whole:
                continue
            stack.enter_context(_fed(module, captures[operation].fed))
            stack.enter_context(watched(module, _keeper(kept, operation)))
        stack.enter_context(watched(modules[whole], _keeper(kept, whole)))
        teacher = parts.teacher
        hidden = captures[whole].fed.to(device=teacher.device, dtype=teacher.dtype)
        captured = captures.get(Operation(None, "rotation"))
        if captured is None:  # each kind of layer is rotated otherwise
            rotation = teacher.rotation(hidden, given.position_ids, teacher.rotation_of(number))
        else:
            rotation = captured.gave.to(device=teacher.device, dtype=teacher.dtype)
        modules[whole](
            hidden,
            attention_mask=given.mask,
            position_ids=given.position_ids,
            **{cache_argument(modules[whole]): cache},
            use_cache=True,
            position_embeddings=(rotation[0], rotation[1]),
        )
    cache.drop_tail()
    return kept


def _keeper(captures: Captures, operation: Operation) -> Put:
    def put(value: Captured) -> None:
        captures[operation] = value

    return put


@torch.inference_mode()
def run_end(parts: Parts, name: str, captures: Captures, given: ForwardInputs) -> Captured:
    """What an operation before or after the layers gives, fed what ``captures`` say of it."""
    operation = Operation(None, name)
    module, teacher = parts.modules[operation], parts.teacher
    fed = captures[operation].fed.to(teacher.device)
    if name == "embedding":
        output = module(fed)
    elif name == "rotation":
        output = module(fed.to(teacher.dtype), position_ids=given.position_ids)
    else:
        output = module(fed.to(teacher.dtype))
    return Captured(captures[operation].fed, _tensor_of(output))


@torch.inference_mode()
def run_by_itself(module: nn.Module, fed: torch.Tensor) -> torch.Tensor:
    """What a module that takes one tensor gives for ``fed``, on the host."""
    parameter = next(module.parameters())
    dtype = parameter.dtype if fed.is_floating_point() else fed.dtype
    return _tensor_of(module(fed.to(device=parameter.device, dtype=dtype)))


@contextmanager
def replaced_outputs(teacher: Teacher, values: dict[Operation, torch.Tensor]) -> Iterator[None]:
    """Inside, these operations of ``teacher`` give ``values``, whatever they compute."""
    modules = Parts(teacher).modules if values else {}
    with ExitStack() as stack:
        for operation, value in values.items():
            stack.enter_context(_replaced(modules[operation], value))
        yield


@contextmanager
def watched(module: nn.Module, put: Put) -> Iterator[None]:
    """Inside, tells ``put`` what ``module`` is fed, before other hooks change it, and what it gives, when they have."""
    fed: list[torch.Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        fed[:] = [_first(args, named).detach().cpu()]

    def after(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        put(Captured(fed[0], _tensor_of(output), is_all=len(args) == 1 and not named))

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _fed(module: nn.Module, value: torch.Tensor) -> Iterator[None]:
    """Inside, ``module`` is fed ``value``; before every other hook, so that they change what is fed as ever."""

    def before(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        given = _first(args, named)
        wanted = value.to(device=given.device, dtype=given.dtype)
        if args:
            return (wanted, *args[1:]), named
        return args, {**named, "hidden_states": wanted}

    handle = module.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _replaced(module: nn.Module, value: torch.Tensor) -> Iterator[None]:
    """Inside, ``module`` gives ``value``, whatever it computes."""

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return value.to(device=output.device, dtype=output.dtype)
        wanted = value.to(device=output[0].device, dtype=output[0].dtype)
        two = wanted.ndim > output[0].ndim  # a rotation: cosines and sines
        return tuple(wanted) if two else (wanted, *output[1:])

    handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _first(args: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
    value = args[0] if args else named["hidden_states"]
    assert isinstance(value, torch.Tensor)
    return value


def _tensor_of(output: Any) -> torch.Tensor:
    """The first tensor of an output; of a rotation both, stacked."""
    if isinstance(output, tuple):
        two = [part for part in output if isinstance(part, torch.Tensor)]
        output = torch.stack(two) if len(two) == 2 and two[0].shape == two[1].shape else two[0]
    assert isinstance(output, torch.Tensor)
    return output.detach().cpu()
