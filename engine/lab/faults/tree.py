"""Faults of the tree, F12 to F14 and the placeholder of F27: nodes without parents, wrong parents, cycles, no ids."""

from __future__ import annotations

from dataclasses import replace

import torch

from specscope.engine.drafters.base import Draft
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget, Places, changing_drafts
from specscope.engine.loop.phases import ForwardInputs
from specscope.engine.tree.grow import Level, tree_of
from specscope.engine.tree.grow import selected_numbers as selected_of
from specscope.engine.tree.tensors import TreeTensors


def _parent_numbers(levels: list[Level]) -> torch.Tensor:
    """(B, C) flat number + 1 of each candidate's parent; 0 is the root."""
    return torch.cat([level.parents.repeat_interleave(level.tokens.shape[2], dim=1) for level in levels], dim=1)


def _without_a_parent(selected: list[int], parents: list[int]) -> list[int]:
    """``selected`` with the first candidate that was left out in place of a node that has a child."""
    taken = set(selected)
    inner = next((parents[number] - 1 for number in selected if parents[number] > 0), None)
    spare = next((number for number in range(len(parents)) if number not in taken), None)
    if inner is None or spare is None:
        return selected
    return sorted(taken - {inner} | {spare})


def _orphan(target: FaultTarget) -> FaultTarget:
    policy = target.models.drafter.policy

    def change(draft: Draft) -> Draft:
        if not draft.levels:
            return draft
        selected, parents = selected_of(draft.levels, policy), _parent_numbers(draft.levels)
        rows = [_without_a_parent(s, p) for s, p in zip(selected.tolist(), parents.tolist(), strict=True)]
        chosen = torch.tensor(rows, device=selected.device)
        return replace(draft, tree=tree_of(draft.levels, chosen, draft.tree.tokens[:, 0]))

    return changing_drafts(target, change)


def _level_bias_dropped(target: FaultTarget) -> FaultTarget:
    policy = target.models.drafter.policy

    def change(draft: Draft) -> Draft:
        if not draft.levels:
            return draft
        sizes = [level.tokens[0].numel() for level in draft.levels]
        # A parent is numbered after all candidates of the levels before its own; without them from level 3 on.
        biases = [sum(sizes[: max(0, number - 1)]) for number in range(len(sizes))]
        levels = [replace(level, parents=level.parents - b) for level, b in zip(draft.levels, biases, strict=True)]
        return replace(draft, tree=tree_of(levels, selected_of(levels, policy), draft.tree.tokens[:, 0]))

    return changing_drafts(target, change)


def _cycle(target: FaultTarget) -> FaultTarget:
    def change(draft: Draft) -> Draft:
        parents = draft.tree.parents.clone()
        for row in range(len(parents)):
            child = next((s for s, above in enumerate(parents[row].tolist()) if above > 0), None)
            if child is not None:
                parents[row, parents[row, child]] = child
        return replace(draft, tree=replace(draft.tree, parents=parents))

    return changing_drafts(target, change)


def _placeholder(target: FaultTarget) -> FaultTarget:
    vocab_size, honest = target.models.teacher.vocab_size, target.phases.inputs

    def change(draft: Draft) -> Draft:
        tokens = draft.tree.tokens.clone()
        if tokens.shape[1] > 1:
            tokens[:, -1] = vocab_size
        return replace(draft, tree=replace(draft.tree, tokens=tokens))

    def inputs(tensors: TreeTensors, dtype: torch.dtype) -> ForwardInputs:
        given = honest(tensors, dtype)
        return given._replace(token_ids=given.token_ids.clamp(max=vocab_size - 1))

    return changing_drafts(target, change).with_phases(inputs=inputs)


_NODES: Places = (("tree", "nodes"), ("tree", "parents"), ("tree", "depths"))

TREE_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F12",
        says="a node is selected whose parent is not",
        expect=Expectation(places=_NODES, invariant="tree.nodes-were-proposed"),
        inject=_orphan,
    ),
    Fault(
        id="F13",
        says="parents are numbered within their level from the third level on",
        expect=Expectation(places=_NODES, invariant="tree.depth-follows-parent"),
        inject=_level_bias_dropped,
    ),
    Fault(
        id="F14",
        says="a node and its child are each other's parent",
        expect=Expectation(places=_NODES, invariant="tree.reaches-root"),
        inject=_cycle,
    ),
    Fault(
        id="F27.id",
        says="a placeholder that is not an id stands in the last slot, and is fed as the last id",
        expect=Expectation(places=(("tree", "nodes"),), invariant="tree.tokens-in-vocabulary"),
        inject=_placeholder,
    ),
)
