"""Errors of operations and the noise floors that they are compared with.

Eager and fused kernels add in other orders, so no two configurations give equal bits. How much that makes is measured:
an operation's floor comes from the same operation in the other layers, which do the same work on other numbers. A fault
in one layer, or in a few, does not move their median. A fault in all of them does: so the floor has a ceiling.
"""

from __future__ import annotations

import math
from statistics import median
from typing import NamedTuple

import torch

from specscope.engine.lab.bisect.operations import BEHIND, IN_LAYER, LAYER_OUTPUT, Operation
from specscope.engine.load.models import DTYPES

#: Median to floor. Honest pairs of eager and fused runs, in float32 and bfloat16, reached 2.4 medians of the other
#: layers.
SPREAD = 8.0
#: The same for a whole forward, whose errors add up; honest pairs reached a quarter of that floor.
SPREAD_OF_FORWARD = 4.0
#: In distances of 1 to the next number: a rounding of everything, and what honest kernels may come to at worst.
LEAST, MOST = 1.0, 64.0
#: Operations after the layers, and those in them that do the same kind of work.
ALIKE = {"final norm": ("input norm", "post-attention norm"), "output head": ("MLP",)}


class Floor(NamedTuple):
    """A noise floor."""

    value: float
    sample_size: int  # layers, or levels of a drafter
    at_ceiling: bool = False  # they asked for more


def relative_error(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """||got - wanted|| / ||wanted||, in float64; infinite where one of them is not finite alone."""
    wanted, got = wanted.double().cpu(), got.double().cpu()
    if not torch.isfinite(wanted).all() or not torch.isfinite(got).all():
        return 0.0 if torch.equal(wanted.nan_to_num(), got.nan_to_num()) else math.inf
    gap, size = float(torch.linalg.vector_norm(got - wanted)), float(torch.linalg.vector_norm(wanted))
    if size == 0:
        return 0.0 if gap == 0 else math.inf
    return gap / size


def position_errors(wanted: torch.Tensor, got: torch.Tensor) -> list[float]:
    """(T,) relative errors of keys and values (L, 2, G, T, W), of each position the largest of the layers."""
    wanted, got = wanted.double(), got.double()
    gaps = torch.linalg.vector_norm(got - wanted, dim=(1, 2, 4))  # (L, T)
    sizes = torch.linalg.vector_norm(wanted, dim=(1, 2, 4)).clamp(min=torch.finfo(torch.float64).tiny)
    largest: list[float] = (gaps / sizes).nan_to_num(nan=math.inf).amax(dim=0).tolist()
    return largest


class Floors:
    """The floors of one bisection, from the errors of all operations.

    Args:
        errors: of every operation.
        dtype: the coarser one of both sides.
    """

    def __init__(self, errors: dict[Operation, float], dtype: str) -> None:
        self._errors, self._eps = errors, torch.finfo(DTYPES[dtype]).eps

    def of(self, operation: Operation) -> Floor:
        """Eight times the median of the same operation in the other layers, or a drafter's other levels, between one
        rounding and 64."""
        is_repeated = operation.layer is not None or operation.level is not None
        names = (operation.name,) if is_repeated else ALIKE.get(operation.name, ())
        sample = [
            error
            for other, error in self._errors.items()
            if (other.layer, other.level) != (None, None)
            and other.name in names
            and other != operation
            and math.isfinite(error)
        ]
        middle = median(sample) if sample else 0.0
        least = LEAST if sample else SPREAD * LEAST
        most = MOST * self._eps
        return Floor(min(max(SPREAD * middle, least * self._eps), most), len(sample), SPREAD * middle > most)

    @property
    def of_forward(self) -> float:
        """Of the logits of a whole forward: the medians of all its operations, as independent errors add."""
        squares = 0.0
        for name in IN_LAYER:
            sample = [e for o, e in self._errors.items() if o.name == name and o.layer is not None and math.isfinite(e)]
            squares += len(sample) * (median(sample) if sample else 0.0) ** 2
        squares += sum(min(self._errors.get(Operation(None, name), 0.0), self._eps) ** 2 for name in BEHIND)
        spread = SPREAD_OF_FORWARD
        return min(max(spread * math.sqrt(squares), spread * self._eps), spread * MOST * self._eps)

    @property
    def above(self) -> list[Operation]:
        """The operations above their floors, in the order in which they run; a layer's output only where none of its
        operations explains it."""
        operations: list[Operation] = []
        explained: set[int | None] = set()
        for operation, error in self._errors.items():
            if error <= self.of(operation).value or (operation.name == LAYER_OUTPUT and operation.layer in explained):
                continue
            operations.append(operation)
            explained.add(operation.layer)
        return operations
