"""Two whole forwards of the step, held together value by value: what no operation shows by itself, such as a buffer
that was not filled again, a hand-over, or what rows do to each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from specscope.engine.lab.bisect.floors import SPREAD, relative_error
from specscope.engine.lab.bisect.operations import Captures, Operation
from specscope.schemas.bisection import OperationError


class _Value(NamedTuple):
    """One value of both forwards."""

    operation: Operation
    name: str  # what it is, in words
    baseline: torch.Tensor
    candidate: torch.Tensor


def find_departure(ours: Captures, theirs: Captures, floor: float, prefix_layer: int | None) -> OperationError | None:
    """The first value of the candidate's forward that is off by more than those before it explain.

    Args:
        ours: what the baseline's operations were fed and gave in the step.
        theirs: the candidate's.
        floor: of a whole forward.
        prefix_layer: the first layer whose committed keys and values differ; from its attention on, they explain what
            differs. None where none do.
    """
    largest = 0.0
    for value in _values(ours, theirs):
        operation = value.operation
        if prefix_layer is not None and operation.layer == prefix_layer and operation.name == "attention":
            return None
        error = relative_error(value.baseline, value.candidate)
        allowed = SPREAD * max(floor, largest)
        if error > allowed:
            return OperationError(
                layer=operation.layer,
                operation=value.name,
                in_place=True,
                error=error,
                floor=allowed,
                sample_size=0,
                at_ceiling=False,
            )
        largest = max(largest, error)
    return None


def _values(ours: Captures, theirs: Captures) -> Iterator[_Value]:
    """In the order of the forward, those that both have; where layers were handed over, those after them."""
    for operation, value in ours.items():
        other = theirs.get(operation)
        if other is None:
            continue
        if value.fed.shape == other.fed.shape and operation.name != "rotation":
            yield _Value(operation, f"input of the {operation.name}", value.fed, other.fed)
        if value.gave.shape == other.gave.shape:
            yield _Value(operation, operation.name, value.gave, other.gave)
