"""Phase check: the structural invariants on a tree's tensors, before a kernel runs on them.

The invariants themselves are the tracer's; this file only reads the tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from specscope.engine.tree_tensors import TreeTensors
from specscope.schemas import InvariantFailure
from specscope.tracer.invariants.structure import STRUCTURE, TreeArrays


class CheckReport(NamedTuple):
    """Ids that passed, and the failures with their witness."""

    passed: list[str]
    failed: list[InvariantFailure]


def tree_arrays(tensors: TreeTensors, vocab_size: int) -> TreeArrays:
    """The tensors as plain lists."""
    n = tensors.num_slots
    return TreeArrays(
        tokens=tensors.token_ids.tolist()[:n],
        parents=tensors.parents.tolist()[:n],
        depths=tensors.depths.tolist()[:n],
        fed_tokens=tensors.token_ids.tolist(),
        positions=tensors.position_ids.tolist(),
        mask_rows=[int.from_bytes(row, "little") for row in pack_rows(tensors.visible)],
        prefix_visible=[tensors.committed_length] * tensors.padded_slots,
        index_tensors=index_tensors(tensors),
        committed_length=tensors.committed_length,
        num_slots=n,
        padded_slots=tensors.padded_slots,
        vocab_size=vocab_size,
    )


def index_tensors(tensors: TreeTensors) -> dict[str, list[int]]:
    """Every tensor of indices that the tensors were made with, flattened."""
    return {"parents": tensors.parents.tolist(), "ancestors": tensors.ancestors.flatten().tolist()}


def pack_rows(visible: torch.Tensor) -> list[bytes]:
    """``visible`` (P, P) bool as bytes a row: byte b, bit i, least significant first, is column 8b + i."""
    packed = np.packbits(visible.cpu().numpy(), axis=1, bitorder="little")
    return [row.tobytes() for row in packed]


def check_tree(tensors: TreeTensors, vocab_size: int) -> CheckReport:
    """Every structural invariant on ``tensors``."""
    arrays = tree_arrays(tensors, vocab_size)
    passed, failed = [], []
    for invariant in STRUCTURE:
        witness = invariant.check(arrays)
        if witness is None:
            passed.append(invariant.id)
        else:
            failed.append(InvariantFailure(id=invariant.id, witness=witness))
    return CheckReport(passed, failed)
