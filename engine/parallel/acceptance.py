"""Acceptance dealt among ranks: each accepts for its share of the rows, and the outcomes are gathered.

Every rank has the coins of all rows, each drawn from the row's own generator, and takes those of its share: so the
generators of all ranks stay equal, whichever rank accepts for a row. The batch is filled up to a multiple of the number
of ranks by its last row, whose outcome is computed again and dropped, so that no rank waits for one that has no row.

Letters: B rows of the batch, R ranks, S rows of a share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch

from specscope.engine.accept.greedy import Acceptance, Trials
from specscope.engine.loop.phases import AcceptInputs
from specscope.engine.parallel.group import RankGroup
from specscope.engine.tree.tensors import TreeTensors

Accept = Callable[[AcceptInputs], Acceptance]


def sharded(accept: Accept, group: RankGroup) -> Accept:
    """``accept`` of all rows, each rank of ``group`` for its share: the same outcome, bit for bit, on every rank."""

    def accept_share(inputs: AcceptInputs) -> Acceptance:
        num_rows = inputs.tree.num_rows
        share = -(-num_rows // group.size)
        rows = [min(row, num_rows - 1) for row in range(group.rank * share, (group.rank + 1) * share)]
        return _gathered(accept(_of_rows(inputs, rows)), group, num_rows)

    return accept_share


def _of_rows(inputs: AcceptInputs, rows: list[int]) -> AcceptInputs:
    """The inputs of ``rows`` alone."""
    return inputs._replace(
        tree=_tree_of_rows(inputs.tree, rows),
        argmax=inputs.argmax[rows],
        logits=inputs.logits[rows],
        child_probs=None if inputs.child_probs is None else inputs.child_probs[rows],
        coins=None if inputs.coins is None else [inputs.coins[row] for row in rows],
    )


def _tree_of_rows(tree: TreeTensors, rows: list[int]) -> TreeTensors:
    changed: dict[str, Any] = {}
    for field in fields(tree):
        value = getattr(tree, field.name)
        changed[field.name] = value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
    return replace(tree, **changed)


def _gathered(ours: Acceptance, group: RankGroup, num_rows: int) -> Acceptance:
    """The outcome of all rows, of which ``ours`` is a share, in one message: each row's values as bytes."""
    tensors = [*_tensors(ours).values(), *_tensors(ours.trials).values()]
    parts = [_as_bytes(tensor) for tensor in tensors]
    every = torch.cat(group.gather(torch.cat(parts, dim=1)))[:num_rows]  # (B, bytes)
    columns = every.split([part.shape[1] for part in parts], dim=1)
    whole = (_as_rows(column, tensor) for column, tensor in zip(columns, tensors, strict=True))
    named: dict[str, Any] = {name: next(whole) for name in _tensors(ours)}
    trials: dict[str, Any] = {name: next(whole) for name in _tensors(ours.trials)}
    return replace(ours, **named, trials=None if ours.trials is None else replace(ours.trials, **trials))


def _tensors(record: Acceptance | Trials | None) -> dict[str, torch.Tensor]:
    """The tensors among its fields, by name."""
    if record is None:
        return {}
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def _as_bytes(rows: torch.Tensor) -> torch.Tensor:
    """(S, bytes) of (S, ...)."""
    return rows.reshape(len(rows), math.prod(rows.shape[1:])).contiguous().view(torch.uint8)


def _as_rows(column: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B, ...) of (B, bytes), of the dtype and the row's shape of ``like`` (S, ...)."""
    aligned = column.clone(memory_format=torch.contiguous_format).flatten()
    return aligned.view(like.dtype).view(len(column), *like.shape[1:])
