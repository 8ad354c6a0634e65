"""The operations of a teacher's forward by name: captured where they run, and run again on another one's inputs.

The one file that knows what transformers calls the parts of a Llama, Qwen or like decoder layer. Parts that a model
has beside them are not looked at one by one; they show in the layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from specscope.engine.cache import TreeCache
from specscope.engine.decoding import ForwardInputs
from specscope.engine.teacher import Teacher
from specscope.tracer.errors import UsageError

#: The operations of a layer in the order in which they run, and the modules that they are.
IN_LAYER = {
    "input norm": "input_layernorm",
    "attention": "self_attn",
    "post-attention norm": "post_attention_layernorm",
    "MLP": "mlp",
}
LAYER_OUTPUT = "layer output"
#: What runs before and behind the layers, and the modules that they are, from the model down.
BEFORE = {"embedding": "model.embed_tokens", "rotation": "model.rotary_emb"}
BEHIND = {"final norm": "model.norm", "output head": "lm_head"}


class Operation(NamedTuple):
    """One operation of the forward."""

    layer: int | None  # None before and behind the layers
    name: str

    def __str__(self) -> str:
        return self.name if self.layer is None else f"layer {self.layer} {self.name}"


@dataclass(frozen=True)
class Captured:
    """What one operation was fed and gave, on the host."""

    fed: torch.Tensor  # (1, P, ...)
    gave: torch.Tensor  # (1, P, ...); cosines and sines together, where it is the rotation


Captures = dict[Operation, Captured]


class Parts:
    """A teacher's modules by operation.

    Raises:
        UsageError: where the model is not laid out like the ones whose names are known.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        try:
            layers = list(teacher.model.model.layers)
            ends = {name: teacher.model.get_submodule(path) for name, path in (BEFORE | BEHIND).items()}
        except AttributeError as error:
            kind = type(teacher.model).__name__
            raise UsageError(f"the parts of {kind} have other names than a Llama's ({error}): not narrowed") from None
        self.modules: dict[Operation, nn.Module] = {Operation(None, name): ends[name] for name in BEFORE}
        for number, layer in enumerate(layers):
            for name, path in IN_LAYER.items():
                if hasattr(layer, path):
                    self.modules[Operation(number, name)] = getattr(layer, path)
            self.modules[Operation(number, LAYER_OUTPUT)] = layer
        self.modules |= {Operation(None, name): ends[name] for name in BEHIND}

    def in_layer(self, number: int) -> dict[Operation, nn.Module]:
        """The operations of one layer, its output last."""
        return {operation: module for operation, module in self.modules.items() if operation.layer == number}

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return self.teacher.num_layers


@torch.inference_mode()
def run_forward(teacher: Teacher, given: ForwardInputs, cache: TreeCache) -> torch.Tensor:
    """Logits (1, P, V) of one whole forward behind what ``cache`` holds; its tail is dropped again."""
    logits = teacher.forward(given.token_ids, given.position_ids, given.mask, cache, ()).logits
    cache.drop_tail()
    return logits.cpu()


def capture(parts: Parts, given: ForwardInputs, cache: TreeCache) -> Captures:
    """What every operation is fed and gives in one whole forward."""
    found: Captures = {}
    with ExitStack() as stack:
        for operation, module in parts.modules.items():
            stack.enter_context(_watched(module, _keeper(found, operation)))
        run_forward(parts.teacher, given, cache)
    return found


@torch.inference_mode()
def run_layer(parts: Parts, number: int, captures: Captures, given: ForwardInputs, cache: TreeCache) -> Captures:
    """What the operations of layer ``number`` give, each fed what ``captures`` say of it; the tail is dropped again.

    Each is fed the other side's own input, and not what the one before it made of that: so an operation that is off
    shows once, in itself.
    """
    found: Captures = {}
    own = parts.in_layer(number)
    whole = Operation(number, LAYER_OUTPUT)
    with ExitStack() as stack:
        for operation, module in own.items():
            if operation == whole:
                continue
            stack.enter_context(_fed(module, captures[operation].fed))
            stack.enter_context(_watched(module, _keeper(found, operation)))
        stack.enter_context(_watched(own[whole], _keeper(found, whole)))
        teacher = parts.teacher
        hidden = captures[whole].fed.to(device=teacher.device, dtype=teacher.dtype)
        rotation = captures[Operation(None, "rotation")].gave.to(device=teacher.device, dtype=teacher.dtype)
        own[whole](
            hidden,
            attention_mask=given.mask,
            position_ids=given.position_ids,
            past_key_values=cache,
            use_cache=True,
            position_embeddings=(rotation[0], rotation[1]),
        )
    cache.drop_tail()
    return found


def _keeper(found: Captures, operation: Operation) -> Callable[[torch.Tensor, torch.Tensor], None]:
    def put(fed: torch.Tensor, gave: torch.Tensor) -> None:
        found[operation] = Captured(fed, gave)

    return put


@torch.inference_mode()
def run_end(parts: Parts, name: str, captures: Captures, given: ForwardInputs) -> Captured:
    """What an operation before or behind the layers gives, fed what ``captures`` say of it."""
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


@contextmanager
def replaced_outputs(teacher: Teacher, values: dict[Operation, torch.Tensor]) -> Iterator[None]:
    """Inside, these operations of ``teacher`` give ``values``, whatever they compute."""
    modules = Parts(teacher).modules if values else {}
    with ExitStack() as stack:
        for operation, value in values.items():
            stack.enter_context(_replaced(modules[operation], value))
        yield


@contextmanager
def _watched(module: nn.Module, put: Callable[[torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Inside, tells what ``module`` is fed, before other hooks change it, and what it gives, when they have."""
    fed: list[torch.Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        fed[:] = [_first(args, named).detach().cpu()]

    def after(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        put(fed[0], _tensor_of(output))

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
        own = _first(args, named)
        wanted = value.to(device=own.device, dtype=own.dtype)
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
