"""Matrix products of linear layers on the host: torch's own, or oneDNN's on weights that were packed for it beforehand.

Torch hands float32 products to a BLAS that is made for many rows. A draft tree has few, and on many processors oneDNN
computes those several times as fast, once the weights lie as it wants them. Which is faster is measured where it runs:
on a processor that the BLAS was made for, packing saves nothing.

The packed weights are a copy. A layer whose weights are changed or replaced packs them anew at its next call.

Letters: R rows, K inputs, N outputs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from specscope.engine.backends.devices import backend_of
from specscope.engine.backends.self_check import LIMITS
from specscope.engine.settings import ProductsChoice
from specscope.tracer.errors import UsageError

#: Rows at which both are timed and compared: teacher-only decoding, a level of a draft, a tree.
TIMED_ROWS = (1, 4, 17)
ROUNDS = 3
#: As many of a model's weights are tried: more than a processor's caches hold, as when a model is run.
MOST_TRIED = 64 << 20
STAND_IN = torch.Size((1024, 512))  # of a weight, where there is no model
#: Packed products run where they take at most this share of the time: less is not worth a copy of the weights, and
#: the choice should not be another one in each process.
WORTH_PACKING = 0.8
#: The copy may take this share of the machine's memory.
MOST_OF_MEMORY = 0.25


class ProductShape(NamedTuple):
    """Of a linear layer."""

    outputs: int
    inputs: int


@dataclass(frozen=True, kw_only=True)
class ChosenProducts:
    """What computes the products, and why."""

    runs: str  # plain or packed
    reason: str  # in words, as doctor prints it
    failure: str | None = None  # in which shape packed products differ from plain ones, where they do


class PackedLinear:
    """Stands in for the ``forward`` of a linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._of = _Packed.of(layer.weight)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(..., K) -> (..., N)."""
        layer = self._layer
        weight = layer.weight
        if weight.is_inference():  # of which nobody can tell whether they were changed
            return F.linear(states, weight, layer.bias)
        if not self._of.is_of(weight):
            self._of = _Packed.of(weight)
        return multiply(states, self._of.packed, layer.bias)


class _Packed(NamedTuple):
    """A weight as oneDNN wants it, and what changes when the weight does."""

    packed: torch.Tensor
    weight: torch.Tensor
    address: int
    version: int

    @classmethod
    def of(cls, weight: torch.Tensor) -> _Packed:
        return cls(pack(weight), weight, weight.data_ptr(), weight._version)

    def is_of(self, weight: torch.Tensor) -> bool:
        return weight is self.weight and weight.data_ptr() == self.address and weight._version == self.version


def pack(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` (N, K) as oneDNN wants it, for any number of rows."""
    with torch.inference_mode(False), torch.no_grad():
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
    return packed


def multiply(states: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(..., K) -> (..., N), by packed weights."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(states, packed, bias, "none", [], "")
    return product


def packing_problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why nothing can be packed there; None where it can."""
    if device.type != "cpu":
        return f"weights are packed for a CPU, the device is {device}"
    if dtype != torch.float32:
        return f"weights are packed in float32, the dtype is {str(dtype).removeprefix('torch.')}"
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch was built without oneDNN"
    return None


def choose_products(
    asked: ProductsChoice,
    attention: str,
    model: PreTrainedModel,
    *,
    warn: Callable[[str], None],
) -> ChosenProducts:
    """What ``asked`` comes to for ``model`` with that attention; on the eager path, the reference, torch's own.

    Raises:
        UsageError: where packed products are asked for and there can be none.
    """
    if attention == "eager":
        if asked == "packed":
            raise UsageError("got packed products with eager attention, the reference, whose products are torch's own")
        return ChosenProducts(runs="plain", reason="the eager path is the reference")
    problem = None if asked == "plain" else packing_problem(torch.device(model.device), model.dtype)
    if asked == "packed" and problem is not None:
        raise UsageError(f"got packed products, but {problem}: give plain or auto")
    if asked == "plain" or problem is not None:
        return ChosenProducts(runs="plain", reason=problem or "asked for")
    layers = linear_layers(model)
    needed, total = sum(layer.weight.nbytes for layer in layers), backend_of("cpu").memory(model.device).total
    if asked == "auto" and total is not None and needed > MOST_OF_MEMORY * total:
        return ChosenProducts(runs="plain", reason=f"packed weights would take {needed / 2**30:.1f} GiB of memory")
    trial = _trial_of(layers)
    if trial.failure is not None:
        warn(f"packed products differ from torch's own {trial.failure}: torch's own are used")
        return ChosenProducts(runs="plain", reason="packed products differ", failure=trial.failure)
    pays = asked == "packed" or trial.share <= WORTH_PACKING
    reason = f"packed ones take {trial.share:.2f} times as long"
    return ChosenProducts(runs="packed" if pays else "plain", reason=reason)


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """The layers of ``model`` whose products can be packed: plain linear ones, no subclasses that compute otherwise."""
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    return [layer for layer in layers if not layer.weight.is_inference()]


def pack_products(model: nn.Module) -> None:
    """Has every linear layer of ``model`` multiply by packed weights. Its parameters stay what they are."""
    for layer in linear_layers(model):
        layer.forward = PackedLinear(layer)  # type: ignore[method-assign, assignment]


class ProductsTrial(NamedTuple):
    """What came of timing and comparing."""

    share: float  # time of packed products over that of plain ones
    failure: str | None  # where they differ


#: What was tried once in this process is not tried again.
_TRIALS: dict[tuple[ProductShape, ...], ProductsTrial] = {}


def _trial_of(layers: list[nn.Linear]) -> ProductsTrial:
    shapes = tuple(ProductShape(*layer.weight.shape) for layer in layers)
    if shapes not in _TRIALS:
        _TRIALS[shapes] = _try(_sample(layers))
    return _TRIALS[shapes]


def try_stand_ins() -> ProductsTrial:
    """The trial with numbers of its own, where there is no model."""
    generator = torch.Generator().manual_seed(0)
    return _try([torch.randn(STAND_IN, generator=generator) for _ in range(MOST_TRIED // STAND_IN.numel() // 4)])


def _sample(layers: list[nn.Linear]) -> list[torch.Tensor]:
    """The weights of the last layers, the output matrix among them: of all where they are not too many."""
    weights, size = list[torch.Tensor](), 0
    for layer in reversed(layers):
        if weights and size + layer.weight.nbytes > MOST_TRIED:
            break
        weights.append(layer.weight.detach())
        size += layer.weight.nbytes
    return weights


def _try(weights: list[torch.Tensor]) -> ProductsTrial:
    """Multiplies by ``weights`` both ways. One thread's own time is taken, on which other processes have no hold."""
    packed, shares, num_threads = [pack(weight) for weight in weights], [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for num_rows in TIMED_ROWS:
                states = _states(weights, num_rows)
                for given, weight, of_weight in zip(states, weights, packed, strict=True):
                    wanted = F.linear(given, weight)
                    error = float((multiply(given, of_weight, None) - wanted).norm() / wanted.norm().clamp(min=1e-30))
                    if not error <= LIMITS[torch.float32]:
                        outputs, inputs = weight.shape
                        place = f"with {num_rows} rows, {inputs} inputs and {outputs} outputs"
                        return ProductsTrial(1.0, f"{place} (error {error:.2g})")
                plain_ns, packed_ns = [], []
                for _ in range(ROUNDS):
                    begun = time.thread_time_ns()
                    for given, weight in zip(states, weights, strict=True):
                        F.linear(given, weight)
                    between = time.thread_time_ns()
                    for given, of_weight in zip(states, packed, strict=True):
                        multiply(given, of_weight, None)
                    plain_ns.append(between - begun)
                    packed_ns.append(time.thread_time_ns() - between)
                shares.append(min(packed_ns) / min(plain_ns))
    finally:
        torch.set_num_threads(num_threads)
    return ProductsTrial(statistics.mean(shares), None)


def _states(weights: list[torch.Tensor], num_rows: int) -> list[torch.Tensor]:
    """(1, R, K) for each weight, the same numbers in every process."""
    generator = torch.Generator().manual_seed(0)
    by_inputs = {
        inputs: torch.randn(1, num_rows, inputs, generator=generator) for inputs in {w.shape[1] for w in weights}
    }
    return [by_inputs[weight.shape[1]] for weight in weights]
