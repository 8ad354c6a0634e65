"""The list of all invariants, in the order of a step's phases."""

from __future__ import annotations

from typing import Any

from specscope.tracer.invariants.base import Context, Invariant
from specscope.tracer.invariants.commit import COMMIT
from specscope.tracer.invariants.decisions import DECISIONS
from specscope.tracer.invariants.structure import STRUCTURE, TreeArrays
from specscope.tracer.invariants.turns import TURNS


def arrays_of(context: Context) -> TreeArrays | None:
    """The step's tree and tensors for the structural invariants; None where the writer left them out."""
    tree, tensors = context.step.tree, context.step.tensors
    if tree is None or tensors is None:
        return None
    return TreeArrays(
        tokens=tree.tokens,
        parents=tree.parents,
        depths=tree.depths,
        fed_tokens=tensors.token_ids,
        positions=tensors.positions,
        mask_rows=[int.from_bytes(bytes.fromhex(row), "little") for row in tensors.mask_rows],
        prefix_visible=tensors.prefix_visible,
        index_tensors=tensors.index_tensors,
        committed_length=tensors.committed_length,
        num_slots=tensors.num_slots,
        padded_slots=tensors.padded_slots,
        vocab_size=context.manifest.teacher.vocab_size,
    )


def missing_need(context: Context, needs: tuple[str, ...]) -> str | None:
    """The first of ``needs`` that neither the step nor, where it begins with ``manifest.``, the manifest has."""
    for need in needs:
        value: Any = context if need.startswith("manifest.") else context.step
        for name in need.split("."):
            value = getattr(value, name, None)
        if value is None:
            return need
    return None


ALL_INVARIANTS: tuple[Invariant[Any], ...] = (*STRUCTURE, *DECISIONS, *COMMIT, *TURNS)
