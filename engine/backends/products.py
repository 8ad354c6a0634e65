"""Matrix products of linear layers on the host: torch's own, or oneDNN's on weights that were packed for it beforehand.

A draft tree has few rows, and on some processors oneDNN computes products of few rows in a fraction of the time, once
the weights lie as it wants them; on others it takes longer. So which is faster is measured where it runs. Layers that
are fed the same, as queries, keys and values are, become one product.

The packed weights are a copy. Layers whose weights are replaced, or changed by torch under its eyes, pack them anew at
the next call; what is written past torch's count of versions, by numpy or through ``.data``, they do not see.

Letters: R rows, K inputs, N outputs.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from specscope.engine.backends.devices import backend_of
from specscope.engine.backends.self_check import LIMITS
from specscope.engine.settings import ProductsChoice
from specscope.tracer.errors import UsageError

#: What layers of one module are called that are fed the same tensor, in the order in which they are called.
FED_ALIKE = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
#: Rows at which both are timed: teacher-only decoding, a level of a draft, a tree.
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


@dataclass(frozen=True, kw_only=True)
class ChosenProducts:
    """What computes the products, and why."""

    runs: str  # plain or packed
    reason: str  # in words


class _Held(NamedTuple):
    """A product that was computed for all of its layers, and not yet asked for by all of them."""

    states: torch.Tensor
    outputs: list[torch.Tensor]


class PackedProduct:
    """One product for linear layers that are fed the same."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        self._layers = layers
        self._packed = _Packed.of([layer.weight for layer in layers])
        self._held: _Held | None = None

    def output_of(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """What layer ``number`` makes of ``states`` (..., K), which nobody changes until all layers were asked."""
        held = self._held  # read once: another thread may decode by the same layers
        if held is None or held.states is not states:
            held = _Held(states, self._outputs(states))
        self._held = held if number + 1 < len(self._layers) else None
        return held.outputs[number]

    def _outputs(self, states: torch.Tensor) -> list[torch.Tensor]:
        layers = self._layers
        weights = [layer.weight for layer in layers]
        if any(weight.is_inference() for weight in weights):  # of which nobody can tell whether they were changed
            return [F.linear(states, layer.weight, layer.bias) for layer in layers]
        if not self._packed.is_of(weights):
            self._packed = _Packed.of(weights)
        if len(layers) == 1:
            return [multiply(states, self._packed.packed, layers[0].bias)]
        parts = multiply(states, self._packed.packed, None).split([len(weight) for weight in weights], dim=-1)
        return [part if layer.bias is None else part + layer.bias for part, layer in zip(parts, layers, strict=True)]


class _WeightState(NamedTuple):
    """What changes when a weight does."""

    address: int
    version: int

    @classmethod
    def of(cls, weight: torch.Tensor) -> _WeightState:
        return cls(weight.data_ptr(), weight._version)


class _Packed(NamedTuple):
    """Weights as oneDNN wants them, one below the other, and as what they were packed."""

    packed: torch.Tensor
    weights: list[torch.Tensor]
    states: list[_WeightState]

    @classmethod
    def of(cls, weights: list[torch.Tensor]) -> _Packed:
        return cls(pack(weights), weights, [_WeightState.of(weight) for weight in weights])

    def is_of(self, weights: list[torch.Tensor]) -> bool:
        same = all(now is before for now, before in zip(weights, self.weights, strict=True))
        return same and self.states == [_WeightState.of(weight) for weight in weights]


def pack(weights: list[torch.Tensor]) -> torch.Tensor:
    """The rows of all ``weights`` (N, K) as oneDNN wants them, for any number of rows of states."""
    with torch.inference_mode(False), torch.no_grad():
        joined = torch.cat([weight.detach() for weight in weights])
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(joined, None)
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


def choose_products(asked: ProductsChoice, attention: str, model: PreTrainedModel) -> ChosenProducts:
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
    if asked != "auto" or problem is not None:
        return ChosenProducts(runs="packed" if asked == "packed" else "plain", reason=problem or "asked for")
    groups = linear_groups(model)
    needed = sum(layer.weight.nbytes for group in groups for layer in group)
    total = backend_of("cpu").memory(model.device).total
    if total is not None and needed > MOST_OF_MEMORY * total:
        return ChosenProducts(runs="plain", reason=f"packed weights would take {needed / 2**30:.1f} GiB of memory")
    share = _share_of(groups)
    reason = f"packed ones take {share:.2f} times as long"
    return ChosenProducts(runs="packed" if share <= WORTH_PACKING else "plain", reason=reason)


def linear_groups(model: nn.Module) -> list[list[nn.Linear]]:
    """The layers of ``model`` whose products can be packed, those that are fed alike together. Only plain linear ones:
    a subclass computes otherwise."""
    groups, grouped = list[list[nn.Linear]](), set[nn.Module]()
    for parent in model.modules():
        for names in FED_ALIKE:
            layers = [getattr(parent, name, None) for name in names]
            plain = [layer for layer in layers if _is_plain(layer)]
            if len(plain) == len(names) and len({layer.in_features for layer in plain}) == 1:
                groups.append(plain)
                grouped.update(plain)
    single = [[layer] for layer in model.modules() if _is_plain(layer) and layer not in grouped]
    return groups + single


def _is_plain(layer: object) -> TypeGuard[nn.Linear]:
    return type(layer) is nn.Linear and not layer.weight.is_inference()


def pack_products(model: nn.Module) -> None:
    """Has every linear layer of ``model`` multiply by packed weights. Its parameters stay what they are."""
    for group in linear_groups(model):
        product = PackedProduct(group)
        for number, layer in enumerate(group):
            layer.forward = partial(product.output_of, number)  # type: ignore[method-assign]


def unpack_products(model: nn.Module) -> None:
    """Has every linear layer of ``model`` multiply as torch does."""
    for group in linear_groups(model):
        for layer in group:
            vars(layer).pop("forward", None)


def packed_difference(model: PreTrainedModel) -> str | None:
    """In words, how far the logits of ``model`` move where its products are packed, as they are now; None where no
    farther than rounding goes."""
    ids = torch.arange(max(TIMED_ROWS), device=model.device)[None] % model.config.vocab_size
    with torch.inference_mode():
        try:
            got = model(input_ids=ids, use_cache=False).logits
        except Exception as failure:  # a model may do with its layers what it likes
            return f"{type(failure).__name__}: {failure}"
        unpack_products(model)
        wanted = model(input_ids=ids, use_cache=False).logits
        pack_products(model)
    error, limit = float((got - wanted).norm() / wanted.norm()), LIMITS[wanted.dtype]
    return None if error <= limit else f"error {error:.2g}, limit {limit:.2g}"


def stand_in_share() -> float:
    """The share of time on random numbers, where there is no model."""
    generator = torch.Generator().manual_seed(0)
    num_weights = MOST_TRIED // (4 * STAND_IN.numel())
    return _try([[torch.randn(STAND_IN, generator=generator)] for _ in range(num_weights)])


#: What was tried once in this process is not tried again: shares of time by the shapes of the weights.
_SHARES: dict[tuple[torch.Size, ...], float] = {}


def _share_of(groups: list[list[nn.Linear]]) -> float:
    """The time of packed products over that of torch's own."""
    shapes = tuple(layer.weight.shape for group in groups for layer in group)
    if shapes not in _SHARES:
        _SHARES[shapes] = _try(_sample(groups))
    return _SHARES[shapes]


def _sample(groups: list[list[nn.Linear]]) -> list[list[torch.Tensor]]:
    """The weights of the last groups, the output matrix among them: of all where they are not too many."""
    sample, size = list[list[torch.Tensor]](), 0
    for group in reversed(groups):
        weights = [layer.weight.detach() for layer in group]
        size += sum(weight.nbytes for weight in weights)
        if sample and size > MOST_TRIED:
            break
        sample.append(weights)
    return sample


def _try(groups: list[list[torch.Tensor]]) -> float:
    """Multiplies by the weights of ``groups`` both ways. One thread's own time is taken, on which other processes have
    no hold."""
    packed, shares, num_threads = [pack(weights) for weights in groups], [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for num_rows in TIMED_ROWS:
                states = _states(groups, num_rows)
                plain_ns, packed_ns = [], []
                for _ in range(ROUNDS):
                    begun = time.thread_time_ns()
                    for given, weights in zip(states, groups, strict=True):
                        for weight in weights:
                            F.linear(given, weight)
                    between = time.thread_time_ns()
                    for given, of_weights in zip(states, packed, strict=True):
                        multiply(given, of_weights, None)
                    plain_ns.append(between - begun)
                    packed_ns.append(time.thread_time_ns() - between)
                shares.append(min(packed_ns) / max(1, min(plain_ns)))
    finally:
        torch.set_num_threads(num_threads)
    return statistics.mean(shares)


def _states(groups: list[list[torch.Tensor]], num_rows: int) -> list[torch.Tensor]:
    """(1, R, K) for each group, the same numbers in every process."""
    generator = torch.Generator().manual_seed(0)
    widths = [weights[0].shape[1] for weights in groups]
    by_width = {width: torch.randn(1, num_rows, width, generator=generator) for width in sorted(set(widths))}
    return [by_width[width] for width in widths]
