"""How alike the two sides of a bisection are: shapes, inputs, drafter pairs; and each side when it runs twice."""

from __future__ import annotations

from typing import Literal

import torch

from specscope.engine.lab.bisect.floors import MOST, relative_error
from specscope.engine.lab.bisect.grafts import Baseline
from specscope.engine.lab.bisect.sides import Side, Unsteady, moved
from specscope.engine.lab.rerun.recorded_trees import FedPairs
from specscope.engine.load.models import DTYPES
from specscope.schemas.bisection import SelfDifference
from specscope.tracer.errors import IncomparableError


def inputs_equal(baseline: Baseline, side: Side) -> bool:
    """Whether both verify forwards were given the same. Infinities of a mask are compared as what they are: seen or
    not."""
    given = moved(baseline.given, side.teacher)
    return (
        torch.equal(given.token_ids, side.given.token_ids)
        and torch.equal(given.position_ids, side.given.position_ids)
        and given.mask.shape == side.given.mask.shape
        and torch.equal(given.mask == 0, side.given.mask == 0)
        and not (baseline.sees_beyond or side.sees_beyond)
    )


def pairs_equal(ours: FedPairs, theirs: FedPairs, dtype: str) -> bool:
    """Whether two drafters were fed the same tokens, and the same features except for rounding."""
    if ours.tokens != theirs.tokens or ours.features is None or theirs.features is None:
        return ours.tokens == theirs.tokens and ours.features is theirs.features
    if ours.features.shape != theirs.features.shape:
        return False
    return relative_error(ours.features, theirs.features) <= MOST * torch.finfo(DTYPES[dtype]).eps


def unsteady(baseline: Baseline, side: Side) -> list[SelfDifference]:
    """Which sides do not give the same twice, and where."""
    differences: list[SelfDifference] = []
    sides: tuple[tuple[Literal["baseline", "candidate"], Unsteady | None], ...] = (
        ("baseline", baseline.alone.unsteady),
        ("candidate", side.alone.unsteady),
    )
    for name, self_check in sides:
        if self_check is not None:
            at = self_check.operation
            layer, operation = (None, None) if at is None else (at.layer, at.name)
            differences.append(SelfDifference(side=name, layer=layer, operation=operation, error=self_check.error))
    return differences


def check_alike(baseline: Baseline, side: Side) -> None:
    """Refuses teachers of two shapes: no value of one fits into the other."""
    ours, theirs = baseline.prefix.shape, side.prefix.shape
    if ours[:3] != theirs[:3] or ours[4] != theirs[4] or baseline.logits.shape[2] != side.logits.shape[2]:
        raise IncomparableError("the two traces' teachers have other shapes: no layer of one can be held to the other")
