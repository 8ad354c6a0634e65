"""Ids, positions and masks of random trees against the slow, obvious reading of "ancestors and self"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specscope.engine.checks import check_tree, pack_rows
from specscope.engine.tree import DraftTree
from specscope.engine.tree_tensors import TreeTensors, additive_mask, ancestor_table, causal_mask, tensorize


@st.composite
def trees(draw: st.DrawFn) -> DraftTree:
    parents, depths, tokens = [0], [0], [draw(st.integers(0, 50))]
    for slot in range(1, draw(st.integers(1, 40))):
        parent = draw(st.integers(0, slot - 1))
        parents.append(parent)
        depths.append(depths[parent] + 1)
        tokens.append(slot)  # distinct, so that siblings are
    values = torch.zeros(len(parents))
    return DraftTree(torch.tensor(tokens), torch.tensor(parents), torch.tensor(depths), values, values)


def slow_ancestors(parents: list[int], slot: int) -> set[int]:
    seen = {slot}
    while slot:
        slot = parents[slot]
        seen.add(slot)
    return seen


def make(tree: DraftTree, committed: int = 11, padding: int = 0) -> TreeTensors:
    return tensorize(tree, committed, int(tree.depths.max()), tree.num_slots + padding)


@settings(deadline=None)
@given(trees(), st.integers(0, 300), st.integers(0, 9))
def test_rows_see_ancestors_and_self_and_padding_sees_itself(tree: DraftTree, committed: int, padding: int) -> None:
    tensors = make(tree, committed, padding)
    parents = tree.parents.tolist()
    for row in range(tensors.padded_slots):
        seen = set(tensors.visible[row].nonzero().flatten().tolist())
        assert seen == (slow_ancestors(parents, row) if row < tree.num_slots else {row})
    assert tensors.position_ids[: tree.num_slots].tolist() == (committed + tree.depths).tolist()
    assert not check_tree(tensors, 100).failed
    assert int(tensors.parents.min()) >= 0


@settings(deadline=None)
@given(trees(), st.integers(0, 40), st.integers(0, 5))
def test_the_additive_mask_and_the_packed_rows_say_the_same(tree: DraftTree, committed: int, padding: int) -> None:
    tensors = make(tree, committed, padding)
    mask = additive_mask(tensors, torch.float32)[0, 0]
    assert mask.shape == (tensors.padded_slots, committed + tensors.padded_slots)
    assert (mask[:, :committed] == 0).all()
    assert torch.equal(mask[:, committed:] == 0, tensors.visible)
    for row, packed in enumerate(pack_rows(tensors.visible)):
        bits = int.from_bytes(packed, "little")
        assert [bool(bits >> c & 1) for c in range(tensors.padded_slots)] == tensors.visible[row].tolist()


def test_the_ancestor_table_climbs_one_parent_a_level() -> None:
    table = ancestor_table(torch.tensor([0, 0, 1, 2]), 3)
    assert table.tolist() == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_the_causal_mask_lets_a_row_see_the_prefix_and_what_came_before_it() -> None:
    mask = causal_mask(2, 3, torch.float32, torch.device("cpu"))[0, 0]
    assert (mask == 0).tolist() == [[True] * 4 + [False], [True] * 5]


CHAIN = DraftTree(
    torch.tensor([9, 1, 2, 3]), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 2]), torch.zeros(4), torch.zeros(4)
)


def flip(tensors: TreeTensors, row: int, column: int) -> TreeTensors:
    visible = tensors.visible.clone()
    visible[row, column] ^= True
    return replace(tensors, visible=visible)


def put(values: torch.Tensor, index: int, value: int) -> torch.Tensor:
    values = values.clone()
    values[index] = value
    return values


BROKEN: dict[str, Callable[[TreeTensors], TreeTensors]] = {
    "tree.tokens-in-vocabulary": lambda t: replace(t, token_ids=put(t.token_ids, 2, 100)),
    "tree.parent-before-child": lambda t: replace(t, parents=put(t.parents, 1, 3)),
    "tree.depth-follows-parent": lambda t: replace(t, depths=put(t.depths, 3, 1)),
    "tree.siblings-distinct": lambda t: replace(t, token_ids=put(t.token_ids, 3, 2)),
    "tree.reaches-root": lambda t: replace(t, parents=put(put(t.parents, 2, 3), 3, 2)),
    "tensors.mask-is-ancestors": lambda t: flip(t, 3, 2),
    "tensors.mask-row-sum": lambda t: flip(t, 2, 0),
    "tensors.padding-isolated": lambda t: flip(t, 4, 0),
    "tensors.position-is-length-plus-depth": lambda t: replace(t, position_ids=put(t.position_ids, 3, 14)),
    "tensors.index-in-range": lambda t: replace(t, parents=put(t.parents, 4, -1)),
}


@pytest.mark.parametrize("invariant", BROKEN)
def test_each_structural_invariant_fires_when_its_rule_is_broken(invariant: str) -> None:
    report = check_tree(BROKEN[invariant](make(CHAIN, padding=2)), 100)
    assert invariant in {failure.id for failure in report.failed}
