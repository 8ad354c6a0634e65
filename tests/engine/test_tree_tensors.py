"""Ids, positions and masks of random batches of trees against the slow, obvious reading of "ancestors and self"."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.structure_mutants import STRUCTURE_MUTANTS
from support.traces import FUSED, first_step, load
from support.trees import batch_of, ragged_trees

from specscope.engine.tree.checks import check_row, pack_rows, sound_rows
from specscope.engine.tree.grow import DraftTree
from specscope.engine.tree.tensors import TreeTensors, additive_mask, ancestor_table, causal_mask, tensorize
from specscope.tracer.oracle.invariants.registry import STRUCTURE

VOCAB = 100


def slow_ancestors(parents: list[int], slot: int) -> set[int]:
    seen = {slot}
    while slot:
        slot = parents[slot]
        seen.add(slot)
    return seen


def make(tree: DraftTree, committed: list[int], padding: int = 0) -> TreeTensors:
    return tensorize(tree, committed, int(tree.depths.max()), tree.tokens.shape[1] + padding)


@st.composite
def batches(draw: st.DrawFn) -> TreeTensors:
    tree = draw(ragged_trees())
    committed = draw(st.lists(st.integers(0, 60), min_size=len(tree.tokens), max_size=len(tree.tokens)))
    return make(tree, committed, draw(st.integers(0, 5)))


@settings(deadline=None)
@given(batches())
def test_slots_see_ancestors_and_themselves_and_padding_sees_itself(tensors: TreeTensors) -> None:
    for row, count in enumerate(tensors.num_slots):
        parents = tensors.parents[row].tolist()
        for slot in range(tensors.padded_slots):
            seen = set(tensors.visible[row, slot].nonzero().flatten().tolist())
            assert seen == (slow_ancestors(parents, slot) if slot < count else {slot})
        wanted = [tensors.committed_lengths[row] + len(slow_ancestors(parents, s)) - 1 for s in range(count)]
        assert tensors.position_ids[row, :count].tolist() == wanted
        assert not check_row(tensors, row, VOCAB).failed
    assert sound_rows(tensors, VOCAB).all()
    assert int(tensors.parents.min()) >= 0


@settings(deadline=None)
@given(batches())
def test_the_dense_mask_and_the_packed_rows_say_the_same_behind_each_rows_own_prefix(tensors: TreeTensors) -> None:
    mask = additive_mask(tensors, torch.float32)
    longest, slots = max(tensors.committed_lengths), tensors.padded_slots
    assert mask.shape == (tensors.num_rows, 1, slots, longest + slots)
    for row, committed in enumerate(tensors.committed_lengths):
        used = mask[row, 0] == 0
        assert used[:, :committed].all()
        assert torch.equal(used[:, committed : committed + slots], tensors.visible[row])
        assert not used[:, committed + slots :].any()
        for slot, packed in enumerate(pack_rows(tensors.visible[row].numpy())):
            bits = int.from_bytes(packed, "little")
            assert [bool(bits >> c & 1) for c in range(slots)] == tensors.visible[row, slot].tolist()


def test_the_ancestor_table_climbs_one_parent_a_level() -> None:
    table = ancestor_table(torch.tensor([[0, 0, 1, 2]]), 3)
    assert table.tolist() == [[[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1], [0, 0, 0, 0]]]


def test_the_causal_mask_lets_a_row_see_the_prefix_and_what_came_before_it() -> None:
    mask = causal_mask(2, 3, torch.float32, torch.device("cpu"))[0, 0]
    assert (mask == 0).tolist() == [[True] * 4 + [False], [True] * 5]


FORK = batch_of([([9, 1, 2, 3], [0, 0, 1, 1])])


def flip(tensors: TreeTensors, row: int, column: int) -> TreeTensors:
    visible = tensors.visible.clone()
    visible[0, row, column] ^= True
    return replace(tensors, visible=visible)


def put(values: torch.Tensor, index: int, value: int) -> torch.Tensor:
    values = values.clone()
    values[0, index] = value
    return values


def retoken(tensors: TreeTensors, slot: int, token: int) -> TreeTensors:
    """With another token in the tree, and so in what is fed."""
    tokens = put(tensors.token_ids, slot, token)
    return replace(tensors, tree_tokens=tokens, token_ids=tokens)


BROKEN: dict[str, Callable[[TreeTensors], TreeTensors]] = {
    "tensors.sizes": lambda t: replace(t, position_ids=t.position_ids[:, :-1]),
    "tree.tokens-in-vocabulary": lambda t: retoken(t, 2, VOCAB),
    "tree.parent-before-child": lambda t: replace(t, parents=put(t.parents, 1, 3)),
    "tree.depth-follows-parent": lambda t: replace(t, depths=put(t.depths, 3, 1)),
    "tree.siblings-distinct": lambda t: retoken(t, 3, 2),
    "tree.reaches-root": lambda t: replace(t, parents=put(put(t.parents, 2, 3), 3, 2)),
    "tensors.mask-is-ancestors": lambda t: flip(t, 3, 2),
    "tensors.mask-row-sum": lambda t: flip(t, 2, 0),
    "tensors.padding-isolated": lambda t: flip(t, 4, 0),
    "tensors.position-is-length-plus-depth": lambda t: replace(t, position_ids=put(t.position_ids, 3, 14)),
    "tensors.index-in-range": lambda t: replace(t, parents=put(t.parents, 4, -1)),
    "tensors.tokens-are-the-trees": lambda t: replace(t, token_ids=put(t.token_ids, 2, 5)),
}


@pytest.mark.parametrize("invariant", BROKEN)
def test_each_structural_invariant_fires_when_its_rule_is_broken(invariant: str) -> None:
    broken = BROKEN[invariant](make(FORK, [11], padding=2))
    assert invariant in {failure.id for failure in check_row(broken, 0, VOCAB).failed}
    assert sound_rows(broken, VOCAB).tolist() == [False]  # the check on the device sees it too


def test_the_check_on_the_device_is_tested_with_every_structural_invariant() -> None:
    assert set(BROKEN) == set(STRUCTURE_MUTANTS) == {invariant.id for invariant in STRUCTURE}


def recorded_tensors(step: dict[str, Any], honest: dict[str, Any]) -> TreeTensors:
    """The tensors of a recorded step as the engine held them.

    A record holds a tree's tokens and parents twice, in the tree and in the tensors; the engine makes the second from
    the first. So where ``step`` differs from ``honest`` in the tree, the tensors follow.
    """
    tree, record = step["tree"], step["tensors"]
    slots, indices = record["padded_slots"], record["index_tensors"]
    fed = record["token_ids"] if tree["tokens"] == honest["tree"]["tokens"] else tree["tokens"]
    parents = indices["parents"] if tree["parents"] == honest["tree"]["parents"] else tree["parents"]
    bits = [int.from_bytes(bytes.fromhex(row), "little") for row in record["mask_rows"]]
    ancestors = torch.tensor(indices["ancestors"]).reshape(-1, len(tree["tokens"]))

    def padded(values: list[int]) -> torch.Tensor:
        return torch.tensor([values + [0] * (slots - len(values))])

    return TreeTensors(
        tree_tokens=padded(tree["tokens"]),
        token_ids=padded(fed[:slots]),
        position_ids=padded(record["positions"]),
        parents=padded(parents),
        depths=padded(tree["depths"]),
        valid=torch.arange(slots)[None] < record["num_slots"],
        ancestors=torch.nn.functional.pad(ancestors, (0, slots - ancestors.shape[1]))[None],
        visible=torch.tensor([[[bool(row >> column & 1) for column in range(slots)] for row in bits]]),
        committed_lengths=[record["committed_length"]],
        num_slots=[record["num_slots"]],
    )


@pytest.mark.parametrize("invariant", STRUCTURE_MUTANTS)
def test_what_the_oracle_finds_in_a_record_the_check_on_the_device_finds_in_the_tensors(invariant: str) -> None:
    lines = load(FUSED)
    vocab_size = lines[0]["teacher"]["vocab_size"]
    honest = first_step(lines, lambda step: bool(step["step"] > 0))
    assert sound_rows(recorded_tensors(honest, honest), vocab_size).tolist() == [True]
    broken = deepcopy(honest)
    STRUCTURE_MUTANTS[invariant](broken)
    assert sound_rows(recorded_tensors(broken, honest), vocab_size).tolist() == [False]


def test_an_ancestor_outside_the_slots_is_found_on_the_device_too() -> None:
    tensors = make(FORK, [11], padding=2)
    for index in (-1, tensors.padded_slots):
        ancestors = tensors.ancestors.clone()
        ancestors[0, 1, 2] = index
        broken = replace(tensors, ancestors=ancestors)
        assert [failure.id for failure in check_row(broken, 0, VOCAB).failed] == ["tensors.index-in-range"]
        assert sound_rows(broken, VOCAB).tolist() == [False]


def test_the_check_on_the_device_names_the_row() -> None:
    tree = batch_of([([9, 1, 2, 3], [0, 0, 1, 1]), ([9, 1], [0, 0]), ([9, 5, 6], [0, 0, 1])])
    tensors = make(tree, [11, 3, 7])
    positions = tensors.position_ids.clone()
    positions[1, 1] += 1
    assert sound_rows(replace(tensors, position_ids=positions), VOCAB).tolist() == [True, False, True]


@settings(deadline=None, max_examples=200)
@given(batches(), st.randoms(use_true_random=False))
def test_the_check_on_the_device_agrees_with_the_invariants(tensors: TreeTensors, random: Random) -> None:
    """Whatever one entry is broken, both see it or neither does."""
    pick = random.randrange
    name = ("token_ids", "parents", "depths", "position_ids", "visible")[pick(5)]
    row, slot = pick(tensors.num_rows), pick(tensors.padded_slots)
    values = getattr(tensors, name).clone()
    if name == "visible":
        values[row, slot, pick(tensors.padded_slots)] ^= True
    else:
        values[row, slot] = pick(tensors.padded_slots + 3)
    broken = replace(tensors, **{name: values})
    seen = [not check_row(broken, r, VOCAB).failed for r in range(tensors.num_rows)]
    assert sound_rows(broken, VOCAB).tolist() == seen
