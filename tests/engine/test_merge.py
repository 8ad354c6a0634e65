"""A lookup's nodes merged into a head's tree: against a slow merge of tries, and what holds of every merged tree."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.drafting import check_tree, path_tokens

from specscope.engine.drafters.merged.drafter import PROPOSERS
from specscope.engine.drafters.ngram import NgramIndex, NgramSettings, look_up, tree_of_rows
from specscope.engine.tree.grow import DraftTree, Frontier, Level, grow, select_tree
from specscope.engine.tree.merge import merge_lookup
from specscope.engine.tree.policy import TreePolicy

VOCAB = 6
Path = tuple[int, ...]


class Case(NamedTuple):
    """What both drafters go by: one row of text each, and a head whose logits follow from the path's last token."""

    texts: list[list[int]]
    policy: TreePolicy
    seed: int


POLICIES = st.builds(
    TreePolicy, st.just("dynamic"), depth=st.integers(1, 4), top_k=st.integers(1, 4), budget=st.integers(1, 14)
)
TEXTS = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=24), min_size=1, max_size=3)
CASES = st.builds(Case, TEXTS, POLICIES, st.integers(0, 50))


def levels_of(case: Case) -> list[Level]:
    """What a head proposes below the last token of each text."""
    table = 2 * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(case.seed))
    roots = torch.tensor([text[-1] for text in case.texts])

    def expand(frontier: Frontier) -> torch.Tensor:
        return table[frontier.tokens]

    positions = torch.zeros(len(roots), 1, dtype=torch.int64)
    return grow(case.policy, table[roots][:, None], positions, expand, to_teacher=lambda ids: ids)


def looked_up(case: Case) -> DraftTree:
    """What the texts themselves propose."""
    lookups = []
    for text in case.texts:
        index = NgramIndex(NgramSettings(1, 4))
        index.extend(text)
        lookups.append(look_up(index, case.policy).nodes)
    return tree_of_rows(lookups, [text[-1] for text in case.texts], torch.device("cpu"))


def merged(case: Case) -> DraftTree:
    return merge_lookup(levels_of(case), looked_up(case), case.policy.budget, PROPOSERS)


def scores_of(tree: DraftTree, row: int) -> dict[Path, float]:
    return {
        tuple(path_tokens(tree, row, slot)): float(tree.scores[row, slot]) for slot in range(1, tree.num_slots[row])
    }


def all_candidates(levels: list[Level], row: int) -> dict[Path, float]:
    """Every path that the head proposed, with its score."""
    paths: list[Path] = []
    scores: dict[Path, float] = {}
    for level in levels:
        proposed = zip(level.parents[row].tolist(), level.tokens[row].tolist(), level.scores[row].tolist(), strict=True)
        below: list[Path] = []
        for parent, tokens, values in proposed:
            above = paths[parent - 1] if parent else ()
            below += [(*above, token) for token in tokens]
            scores |= {(*above, token): value for token, value in zip(tokens, values, strict=True)}
        paths += below
    return scores


@given(CASES)
def test_a_merged_tree_has_the_best_of_both_tries(case: Case) -> None:
    tree, looked, levels = merged(case), looked_up(case), levels_of(case)
    check_tree(tree)
    for row in range(len(case.texts)):
        head, lookup = all_candidates(levels, row), scores_of(looked, row)
        both = {path: max(head.get(path, -99.0), lookup.get(path, -99.0)) for path in head | lookup}
        kept = scores_of(tree, row)
        assert len(kept) == min(case.policy.budget, len(head)), "no path twice, and the budget is kept"
        assert kept.items() <= both.items()
        assert min(kept.values()) >= max((both[path] for path in both.keys() - kept.keys()), default=-99.0)


@given(CASES)
def test_every_node_names_its_proposers(case: Case) -> None:
    tree, looked, levels = merged(case), looked_up(case), levels_of(case)
    assert tree.proposers is not None
    for row in range(len(case.texts)):
        head, lookup = all_candidates(levels, row), scores_of(looked, row)
        bits = tree.proposers.bits[row].tolist()
        assert bits[0] == 0
        for slot in range(1, tree.num_slots[row]):
            path = tuple(path_tokens(tree, row, slot))
            assert bits[slot] == (path in head) + 2 * (path in lookup)


@given(CASES)
def test_where_nothing_is_found_the_tree_is_the_heads(case: Case) -> None:
    fresh = case._replace(texts=[[text[-1]] for text in case.texts])
    tree, levels = merged(fresh), levels_of(fresh)
    roots = torch.tensor([text[-1] for text in fresh.texts])
    wanted = select_tree(levels, roots, TreePolicy("dynamic", depth=4, top_k=4, budget=len(tree.tokens[0]) - 1))
    for name in ("tokens", "parents", "depths", "scores"):
        assert torch.equal(getattr(tree, name), getattr(wanted, name)), name


def test_a_tail_hangs_from_the_heads_node_and_the_best_score_counts() -> None:
    """The text says 1 2 3 after 0; the head says 1 with low and 4 with high probability."""
    logits = torch.full((VOCAB, VOCAB), -4.0)
    logits[:, 4], logits[:, 1] = 3.0, 1.0

    def expand(frontier: Frontier) -> torch.Tensor:
        return logits[frontier.tokens]

    policy = TreePolicy("dynamic", depth=3, top_k=2, budget=5)
    levels = grow(policy, logits[:1][:, None], torch.zeros(1, 1, dtype=torch.int64), expand, to_teacher=lambda ids: ids)
    text = [5, 0, 1, 2, 3, 5, 0]
    tree = merge_lookup(levels, looked_up(Case([text], policy, 0)), policy.budget, PROPOSERS)
    assert tree.proposers is not None
    by_path = {
        tuple(path_tokens(tree, 0, slot)): int(bits)
        for slot, bits in enumerate(tree.proposers.bits[0].tolist())
        if slot
    }
    assert by_path == {(4,): 1, (4, 4): 1, (4, 4, 4): 1, (1,): 3, (1, 2): 2}
    scores = scores_of(tree, 0)
    assert scores[1,] == pytest.approx(math.log(1 / 2)), "twice the last two tokens, and 1 after them before"
    assert scores[1, 2] == pytest.approx(2 * math.log(1 / 2))
