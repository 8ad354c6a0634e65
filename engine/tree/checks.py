"""Phase check: the structural invariants on a tree's tensors, before a kernel runs on them.

The invariants themselves are the tracer's; this file only reads the tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.digests import digest_tensors
from specscope.engine.host import sent
from specscope.engine.tree.tensors import TreeTensors
from specscope.schemas import InvariantFailure
from specscope.tracer.oracle.invariants.registry import STRUCTURE
from specscope.tracer.oracle.invariants.structure import TreeArrays
from specscope.tracer.oracle.invariants.tensors import SIZES


class CheckReport(NamedTuple):
    """Ids that passed, and the failures with their witness."""

    passed: list[str]
    failed: list[InvariantFailure]


#: What ``check_row`` finds of a row that ``sound_rows`` finds sound.
ALL_PASSED = CheckReport([invariant.id for invariant in STRUCTURE], [])


def tree_arrays(tensors: TreeTensors, row: int, vocab_size: int) -> TreeArrays:
    """One row's tensors as plain lists."""
    n, committed = tensors.num_slots[row], tensors.committed_lengths[row]
    return TreeArrays(
        tokens=tensors.tree_tokens[row].tolist()[:n],
        parents=tensors.parents[row].tolist()[:n],
        depths=tensors.depths[row].tolist()[:n],
        fed_tokens=tensors.token_ids[row].tolist(),
        positions=tensors.position_ids[row].tolist(),
        mask_rows=[int.from_bytes(packed, "little") for packed in pack_rows(tensors.visible[row].cpu().numpy())],
        prefix_visible=[committed] * tensors.padded_slots,
        index_tensors=index_tensors(tensors, row),
        committed_length=committed,
        num_slots=n,
        padded_slots=tensors.padded_slots,
        vocab_size=vocab_size,
    )


def index_tensors(tensors: TreeTensors, row: int) -> dict[str, list[int]]:
    """Every tensor of indices that a row's tensors were made with, flattened."""
    return {"parents": tensors.parents[row].tolist(), "ancestors": tensors.ancestors[row].flatten().tolist()}


def pack_rows(visible: NDArray[np.bool_]) -> list[bytes]:
    """``visible`` (P, W) as bytes a row: byte b, bit i, least significant first, is column 8b + i."""
    packed = np.packbits(visible, axis=1, bitorder="little")
    return [row.tobytes() for row in packed]


class InputSnapshot(NamedTuple):
    """Copies of what a forward is to be given."""

    token_ids: torch.Tensor  # (B, P)
    position_ids: torch.Tensor  # (B, P)
    visible: torch.Tensor  # (B, P, P) which tree columns are seen

    def digest(self, row: int) -> str:
        """Of one row."""
        return digest_tensors(*(values[row] for values in self))


def snapshot_of(tensors: TreeTensors) -> InputSnapshot:
    """As the tensors are now, whatever is done to them before they are fed."""
    return InputSnapshot(tensors.token_ids.clone(), tensors.position_ids.clone(), tensors.visible.clone())


def check_row(tensors: TreeTensors, row: int, vocab_size: int) -> CheckReport:
    """Every structural invariant on one row of ``tensors``; where the sizes are wrong, none of the others."""
    arrays = tree_arrays(tensors, row, vocab_size)
    passed, failed = [], []
    for invariant in STRUCTURE:
        witness = invariant.check(arrays)
        if witness is None:
            passed.append(invariant.id)
        else:
            failed.append(InvariantFailure(id=invariant.id, witness=witness))
            if invariant is SIZES:
                break
    return CheckReport(passed, failed)


def sound_rows(tensors: TreeTensors, vocab_size: int) -> torch.Tensor:
    """(B,) bool, on the device: whether a row passes what the structural invariants amount to. Waits for nothing: for
    the witness of an unsound row, ask ``check_row``.
    """
    if not _sizes_agree(tensors):
        return torch.zeros(tensors.num_rows, dtype=torch.bool, device=tensors.valid.device)
    nodes = _sound_nodes(tensors, vocab_size) & _sound_inputs(tensors)
    index = (tensors.ancestors >= 0) & (tensors.ancestors < tensors.padded_slots)
    return nodes.all(dim=1) & index.flatten(1).all(dim=1) & ~_has_twins(tensors)


def _sizes_agree(tensors: TreeTensors) -> bool:
    """Whether every tensor has a row per padded slot, and no tree more slots than that. Only shapes are read."""
    rows, slots = tensors.token_ids.shape
    flat = (tensors.tree_tokens, tensors.position_ids, tensors.parents, tensors.depths, tensors.valid)
    return (
        all(values.shape == (rows, slots) for values in flat)
        and tensors.visible.shape == (rows, slots, slots)
        and tensors.ancestors.shape == (rows, tensors.ancestors.shape[1], slots)
        and len(tensors.num_slots) == len(tensors.committed_lengths) == rows
        and all(1 <= count <= slots for count in tensors.num_slots)
    )


def _sound_nodes(tensors: TreeTensors, vocab_size: int) -> torch.Tensor:
    """(B, P) whether a slot's token, parent and depth are those of a tree."""
    slots, padding = torch.arange(tensors.padded_slots, device=tensors.valid.device), ~tensors.valid
    above = tensors.depths.gather(1, tensors.parents.clamp(0, tensors.padded_slots - 1))
    return (
        (((tensors.tree_tokens >= 0) & (tensors.tree_tokens < vocab_size)) | padding)
        & (tensors.parents >= 0)
        & (tensors.parents < torch.where(padding, tensors.padded_slots, slots.clamp(min=1)))
        & ((tensors.depths == torch.where(slots > 0, above + 1, 0)) | padding)
    )


def _sound_inputs(tensors: TreeTensors) -> torch.Tensor:
    """(B, P) whether what a slot feeds the forward follows from the tree: its token, its position, what it sees."""
    slots, padding = torch.arange(tensors.padded_slots, device=tensors.valid.device), ~tensors.valid
    committed = sent(tensors.committed_lengths, slots.device)[:, None]
    # A slot sees its parent's columns and itself: from the root down, that is its ancestors and nothing else.
    itself = torch.eye(tensors.padded_slots, dtype=torch.bool, device=slots.device)
    parents = tensors.parents.clamp(0, tensors.padded_slots - 1)[:, :, None].expand_as(tensors.visible)
    inner = tensors.valid & (slots > 0)
    wanted = torch.where(inner[:, :, None], tensors.visible.gather(1, parents), False) | itself
    return (
        ((tensors.token_ids == tensors.tree_tokens) | padding)
        & ((tensors.position_ids == committed + tensors.depths) | padding)
        & (tensors.visible == wanted).all(dim=2)
    )


def _has_twins(tensors: TreeTensors) -> torch.Tensor:
    """(B,) whether two children of a node have the same token."""
    inner = tensors.valid & (torch.arange(tensors.padded_slots, device=tensors.valid.device) > 0)
    twins = (
        (tensors.parents[:, :, None] == tensors.parents[:, None])
        & (tensors.tree_tokens[:, :, None] == tensors.tree_tokens[:, None])
        & inner[:, :, None]
        & inner[:, None]
    ).tril(-1)
    return twins.flatten(1).any(dim=1)
