"""Steps with larger trees than the handmade one has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specscope.schemas import Step
from specscope.tracer.oracle.invariants.structure import expected_rows


def changed(step: Step, section: str, **changes: Any) -> Step:
    """The step with other fields in one of its sections."""
    return step.model_copy(update={section: getattr(step, section).model_copy(update=changes)})


def grown(step: Step, num_nodes: int, parent_of: Callable[[int], int] = lambda slot: (slot - 1) // 4) -> Step:
    """The step with a sound tree of so many drafted nodes, four below each, or as ``parent_of`` says; none accepted."""
    size, parents, depths = num_nodes + 1, [0], [0]
    for slot in range(1, size):
        parents.append(parent_of(slot))
        depths.append(depths[parents[slot]] + 1)
    assert step.tree is not None
    assert step.tensors is not None
    assert step.accept is not None
    bonus = step.accept.bonus_token
    committed = step.tensors.committed_length
    tokens = [step.tree.tokens[0], *range(1000, 1000 + num_nodes)]
    scores = [-float(depth) for depth in depths]
    step = changed(step, "tree", tokens=tokens, parents=parents, depths=depths, logprobs=scores, scores=scores)
    rows = [row.to_bytes((size + 7) // 8, "little").hex() for row in expected_rows(parents, size, size)]
    sizes = {"num_slots": size, "padded_slots": size, "prefix_visible": [committed] * size, "token_ids": tokens}
    step = changed(step, "tensors", mask_rows=rows, positions=[committed + depth for depth in depths], **sizes)
    tops = {"top_tokens": [[bonus, 99]] * size, "top_logits": [[9.5, 7.25]] * size}
    return changed(step, "verify", argmax=[bonus] * size, **tops)


def deep(step: Step) -> Step:
    """255 drafted nodes to depth 20 exactly, thirteen on every level but the last."""
    return grown(step, 255, lambda slot: max(0, slot - 13))
