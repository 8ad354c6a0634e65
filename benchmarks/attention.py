"""Another attention kernel, by default tree attention in two parts, against torch's masked call, over the context.

    python -m benchmarks.attention [--kernel NAME] [--device DEVICE] [--threads N] [--rounds N] [--layers N]

Both compute the layers of one forward over one row: a mask that no layer has seen, then one call per layer. They take
turns, so that their ratio holds on a busy machine; the figures are medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import click
import torch

from specscope.engine.backends.attention import AttentionFunction, fused_attention
from specscope.engine.backends.base import Backend
from specscope.engine.backends.devices import backend_of, resolve_device
from specscope.engine.backends.kernels import find_kernel

CONTEXTS = (256, 1024, 4096, 8192)
NODES = (16, 60, 255)
WIDTH = 64


class Shape(NamedTuple):
    """Query heads over key-value heads."""

    heads: int
    kv_heads: int


SHAPES = (Shape(4, 4), Shape(8, 2))


class Place(NamedTuple):
    """Where the kernels run."""

    backend: Backend
    device: torch.device


class Case(NamedTuple):
    """What one forward attends with."""

    shape: Shape
    context: int
    nodes: int


class Inputs(NamedTuple):
    """What the kernels are called with, in float32; letters as in ``backends.attention``."""

    query: torch.Tensor  # (1, H, Q, W)
    key: torch.Tensor  # (1, G, S, W)
    value: torch.Tensor  # (1, G, S, W)
    mask: torch.Tensor  # (1, 1, Q, S) additive


def inputs_of(case: Case, device: torch.device) -> Inputs:
    """Every second slot begins a branch: what it sees does not matter to the time."""
    keys = case.context + case.nodes
    query = torch.randn(1, case.shape.heads, case.nodes, WIDTH, device=device)
    key, value = (torch.randn(1, case.shape.kv_heads, keys, WIDTH, device=device) for _ in range(2))
    hidden = ~torch.eye(case.nodes, dtype=torch.bool, device=device)
    hidden[1::2, 0] = False
    mask = torch.zeros(1, 1, case.nodes, keys, device=device)
    mask[..., case.context :].masked_fill_(hidden, -torch.inf)
    return Inputs(query, key, value, mask)


def forward(attention: AttentionFunction, case: Case, num_layers: int, place: Place) -> Callable[[], None]:
    """All attention calls of a forward; waits for the device."""
    query, key, value, mask = inputs_of(case, place.device)

    def run() -> None:
        fresh = mask.clone()
        for _ in range(num_layers):
            attention(query, key, value, fresh, scale=WIDTH**-0.5)
        place.backend.synchronise(place.device)

    return run


def medians(works: list[Callable[[], None]], rounds: int) -> list[float]:
    """Seconds of each, in turns, after one that is not counted."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, seconds in zip(works, times, strict=True):
            begun = time.perf_counter()
            work()
            if number:
                seconds.append(time.perf_counter() - begun)
    return [statistics.median(seconds) for seconds in times]


@click.command()
@click.option("--kernel", default="two-part", show_default=True, help="What is measured against fused.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--layers", default=10, show_default=True, help="Calls that share a mask.")
def main(kernel: str, device: str, threads: int, rounds: int, layers: int) -> None:
    """Print a table in Markdown: the time of torch's masked call over that of the kernel."""
    torch.set_num_threads(threads)
    where = resolve_device(device)
    place = Place(backend_of(where.type), where)
    kernels = (fused_attention, find_kernel(kernel).function)
    print("| heads | nodes | " + " | ".join(f"{context:,} tokens" for context in CONTEXTS) + " |")
    print("|---|---|" + "---|" * len(CONTEXTS))
    with torch.inference_mode():
        for shape in SHAPES:
            for nodes in NODES:
                cases = [Case(shape, context, nodes) for context in CONTEXTS]
                works = [[forward(each, case, layers, place) for each in kernels] for case in cases]
                ratios = [masked / other for masked, other in (medians(pair, rounds) for pair in works)]
                cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"| {shape.heads} over {shape.kv_heads} | {nodes} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
