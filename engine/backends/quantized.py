"""Linear layers with quantised weights, on a CPU, by torch's own kernels; what they are fed stays floating-point.

int8 has a scale for each output, int4 a scale and an offset for each group of inputs. Both kernels compute with inputs
in bfloat16, the only dtype in which they are fast: others are rounded to it, and the outputs widened again. torchao
0.18 was tried: its int8 dequantises on a CPU, which took longer than the products it replaced, and its int4 has no
layout for one.

Letters: R rows, K inputs, N outputs, G groups of inputs.
"""

from __future__ import annotations

import torch
from torch import nn

from specscope.engine.settings import QuantizationName
from specscope.tracer.errors import UsageError

#: The kernels' own.
COMPUTED_IN = torch.bfloat16
GROUP = 32  # inputs that share a scale in int4
OUTPUTS = 16  # in int4 the outputs come in blocks of so many
MLP_LAYERS = ("gate_proj", "up_proj", "down_proj")


class QuantizedLinear(nn.Module):
    """A linear layer whose weights are quantised; a bias stays as it is.

    Args:
        layer: the one that it stands for.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., K) -> (..., N), in the dtype of ``states``."""
        product = self.multiply(states.reshape(-1, states.shape[-1]).to(COMPUTED_IN)).to(states.dtype)
        product = product.view(*states.shape[:-1], product.shape[-1])
        return product if self.bias is None else product + self.bias

    def multiply(self, states: torch.Tensor) -> torch.Tensor:
        """(R, K) -> (R, N)."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """Symmetric, with a scale for each output."""

    weight: torch.Tensor  # (N, K) int8
    scales: torch.Tensor  # (N,)

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        weight = layer.weight.detach().float()
        scales = _at_least_tiny(weight.abs().amax(dim=1) / 127).to(COMPUTED_IN)
        rounded = (weight / scales.float()[:, None]).round().clamp(-127, 127)
        self.register_buffer("weight", rounded.to(torch.int8))
        self.register_buffer("scales", scales)

    def multiply(self, states: torch.Tensor) -> torch.Tensor:
        """By torch's product with int8 weights."""
        return torch._weight_int8pack_mm(states, self.weight, self.scales)


class Int4Linear(QuantizedLinear):
    """From the least to the largest weight of each ``GROUP`` of inputs in 16 steps.

    Raises:
        UsageError: where the layer cannot be cut into groups and blocks.
    """

    packed: torch.Tensor
    scales_and_offsets: torch.Tensor  # (G, N, 2)

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        num_outputs, num_inputs = layer.weight.shape
        if num_inputs % GROUP or num_outputs % OUTPUTS:
            raise UsageError(
                f"got a layer of {num_inputs} inputs and {num_outputs} outputs, wanted multiples of {GROUP} and "
                f"{OUTPUTS} for int4: give int8"
            )
        groups = layer.weight.detach().float().view(num_outputs, -1, GROUP)  # (N, G, GROUP)
        least, largest = groups.amin(dim=2), groups.amax(dim=2)
        scales = _at_least_tiny((largest - least) / 15).to(COMPUTED_IN)
        # The kernel takes 8 from each number: an offset is what 8 stands for.
        offsets = (least + 8 * scales.float()).to(COMPUTED_IN)
        rounded = ((groups - offsets.float()[:, :, None]) / scales.float()[:, :, None]).round() + 8
        numbers = rounded.clamp(0, 15).to(torch.int32).view(num_outputs, num_inputs)
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1))
        pairs = torch.stack([scales, offsets], dim=2).transpose(0, 1).contiguous()
        self.register_buffer("scales_and_offsets", pairs)

    def multiply(self, states: torch.Tensor) -> torch.Tensor:
        """By torch's product with packed int4 weights."""
        product: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            states, self.packed, GROUP, self.scales_and_offsets
        )
        return product


def _at_least_tiny(scales: torch.Tensor) -> torch.Tensor:
    """Scales that can be divided by, where weights are all alike."""
    return torch.where(scales == 0, torch.finfo(COMPUTED_IN).tiny, scales)


def quantize(model: nn.Module, name: QuantizationName) -> None:
    """Replaces linear layers of ``model`` by quantised ones: all of them for int8, its MLPs' for int4-mlp.

    Raises:
        UsageError: where the model is not on a CPU, or a layer does not fit.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise UsageError(f"got {name} weights, which are for a CPU, and the device is {device}: give none")
    linear = [
        (parent, child, layer)
        for parent in model.modules()
        for child, layer in parent.named_children()
        if type(layer) is nn.Linear
    ]
    for parent, child, layer in linear:
        if name == "int8":
            setattr(parent, child, Int8Linear(layer))
        elif child in MLP_LAYERS:
            setattr(parent, child, Int4Linear(layer))
