"""What a machine would run and why, in facts: what ``specscope doctor`` prints."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from specscope.engine.backends.attention import ATTENTION, AttentionFunction
from specscope.engine.backends.choice import kernel_of
from specscope.engine.backends.devices import TORCH_TYPES, backend_of, resolve_device
from specscope.engine.backends.graphs import Graphs
from specscope.engine.backends.kernels import Kernel, installed_backends
from specscope.engine.backends.products import packing_problem, stand_in_share
from specscope.engine.backends.self_check import CASES, LIMITS, Heads, SelfCheck, build_call, self_check

CHECKED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class DeviceFacts(NamedTuple):
    """One device."""

    name: str
    description: str
    memory_total: int | None  # bytes


class CheckFacts(NamedTuple):
    """A kernel in one dtype."""

    dtype: str
    check: SelfCheck
    seconds: float


class GraphFacts(NamedTuple):
    """What became of one attention call that was captured."""

    kind: str
    captures: bool  # whether verify forwards are captured without --graph
    problem: str | None


class AttentionFacts(NamedTuple):
    """What would run on one device."""

    device: str
    kernel: Kernel | None  # None: eager
    checks: list[CheckFacts]
    graph: GraphFacts | None  # None where the device has no graphs
    packed_share: float | None  # time of packed products over that of torch's own; None where there are none


def list_devices() -> list[DeviceFacts]:
    """Every device that torch sees."""
    facts = []
    for device_type in dict.fromkeys(["cpu", *TORCH_TYPES, *installed_backends()]):
        backend = backend_of(device_type)
        for name in backend.devices():
            device = backend.device(name)
            facts.append(DeviceFacts(name, backend.describe(device), backend.memory(device).total))
    return facts


def examine(device_name: str, attention: str) -> AttentionFacts:
    """Compares what ``attention`` means on that device with the eager attention, in every dtype that it takes.

    Raises:
        UsageError: where there is no such device, or no such kernel.
    """
    device = resolve_device(device_name)
    kernel = kernel_of(attention, device)
    backend, checks = backend_of(device.type), []
    for dtype in CHECKED_DTYPES if kernel is not None else ():
        assert kernel is not None
        name = str(dtype).removeprefix("torch.")
        if not kernel.takes(name):
            continue
        start = time.perf_counter()
        check = self_check(ATTENTION[kernel.name], heads=Heads(group=4), device=device, dtype=dtype)
        backend.synchronise(device)
        checks.append(CheckFacts(name, check, time.perf_counter() - start))
    graphs = backend.graphs(device)
    graph = None
    if graphs is not None:
        function = ATTENTION["eager" if kernel is None else kernel.name]
        dtype = next(d for d in CHECKED_DTYPES if kernel is None or kernel.takes(str(d).removeprefix("torch.")))
        graph = GraphFacts(graphs.kind, backend.captures, graph_problem(graphs, function, device, dtype))
    return AttentionFacts(str(device), kernel, checks, graph, _packed_share(device))


def _packed_share(device: torch.device) -> float | None:
    return stand_in_share() if packing_problem(device, torch.float32) is None else None


def graph_problem(graphs: Graphs, attention: AttentionFunction, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with a call of ``attention`` that is captured, and replayed with other numbers; None where it gives
    what it gives uncaptured."""
    call, graph = build_call(CASES[0], Heads(), device, dtype), graphs.new()
    try:
        with torch.inference_mode():
            output = graph.capture(lambda: attention(*call))
            for tensor in (call.query, call.key, call.value):
                tensor.copy_(tensor.roll(1, dims=2))
            graph.replay()
            wanted = attention(*call)
            error = float((output - wanted).norm() / wanted.norm())
    except Exception as failure:  # what a device raises is its own affair, as is what a kernel does
        return f"{type(failure).__name__}: {failure}"
    return None if error <= LIMITS[dtype] else f"a replay differs from the call uncaptured: error {error:.2g}"
