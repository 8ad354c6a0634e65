"""CUDA devices: torch's scaled dot-product attention, and verify forwards that are captured in graphs.

FlexAttention is the other way to attend by a tree's mask: ``--attention flex``. It is not what runs by default, for it
must be compiled before it is fast, and which of the two is faster on a device has not been measured. None of this has
been run on a GPU: the tests run every line of it against a torch whose graphs are emulated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from specscope.engine.backends.accelerator import Accelerator
from specscope.engine.backends.graphs import Graphs, Result


class CudaGraph:
    """A graph of torch's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], Result]) -> Result:
        """Captures ``work`` on another stream, after running it there once, for what libraries allocate at first.

        Raises:
            RuntimeError: where it waits for the device, or does what else cannot be captured.
        """
        current, stream = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            work()
        current.wait_stream(stream)
        with torch.cuda.graph(self._graph, stream=stream):
            return work()

    def replay(self) -> None:
        """Launches the graph on the current stream."""
        self._graph.replay()


class Cuda(Accelerator):
    """NVIDIA's devices, and AMD's where torch calls them cuda."""

    captures = True

    def __init__(self) -> None:
        super().__init__("cuda")

    def graphs(self, device: torch.device) -> Graphs:
        """Torch's own."""
        return Graphs("cuda-graph", partial(CudaGraph, device))
