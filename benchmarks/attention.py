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


def forward(attention: AttentionFunction, case: Case, num_layers: int, place: Place) -> Callable[[], None]:
    """All attention calls of a forward, in float32; waits for the device."""
    generator = torch.Generator().manual_seed(0)
    keys = case.context + case.nodes
    query = torch.randn(1, case.shape.heads, case.nodes, WIDTH, generator=generator)
    key, value = (torch.randn(1, case.shape.kv_heads, keys, WIDTH, generator=generator) for _ in range(2))
    mask = torch.zeros(1, 1, case.nodes, keys)
    # Every second slot begins a branch: what it sees does not matter to the time.
    hidden = ~torch.eye(case.nodes, dtype=torch.bool)
    hidden[1::2, 0] = False
    mask[..., case.context :].masked_fill_(hidden, -torch.inf)
    query, key, value, mask = (values.to(place.device) for values in (query, key, value, mask))

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
                cells = []
                for context in CONTEXTS:
                    case = Case(shape, context, nodes)
                    masked, other = medians([forward(each, case, layers, place) for each in kernels], rounds)
                    cells.append(f"{masked / other:.2f}")
                print(f"| {shape.heads} over {shape.kv_heads} | {nodes} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
