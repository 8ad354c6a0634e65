"""The dynamic tree against a slow, obvious implementation, with and without ties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specscope.engine.tree import (
    DraftTree,
    Level,
    TreePolicy,
    best_candidates,
    propose,
    root_only,
    select_tree,
    stable_topk,
)
from specscope.tracer.errors import UsageError

VOCAB = 7


def grow(policy: TreePolicy, seed: int, grid: int) -> list[Level]:
    """Levels from random logits on a coarse grid, so that exact ties abound; a node's logits hang on its path alone."""
    numbered: list[tuple[int, ...]] = []

    def logits_of(path: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((seed, path)) % 2**31)
        return torch.randint(0, grid, (VOCAB,), generator=generator).float()

    empty = torch.zeros(0, dtype=torch.int64)
    levels = [propose(logits_of(())[None], empty, torch.zeros(1), torch.zeros(1), policy.top_k)]
    numbered += [(int(t),) for t in levels[0].tokens[0]]
    base = 0
    for _ in range(1, policy.depth):
        last = levels[-1]
        chosen = best_candidates(last, policy.top_k)
        paths = [numbered[base + int(c)] for c in chosen]
        logits = torch.stack([logits_of(p) for p in paths])
        level = propose(logits, chosen + base, last.scores.flatten()[chosen], torch.zeros(len(paths)), policy.top_k)
        base += last.tokens.numel()
        numbered += [(*p, int(t)) for p, row in zip(paths, level.tokens, strict=True) for t in row]
        levels.append(level)
    return levels


def slow_tree(levels: list[Level], budget: int) -> set[tuple[int, ...]]:
    """The paths of the best candidates: sorted by score descending, then number; nothing clever."""
    candidates: list[tuple[float, int, tuple[int, ...]]] = []
    for level in levels:
        for row, parent in enumerate(level.parents.tolist()):
            above = candidates[parent - 1][2] if parent else ()
            for token, score in zip(level.tokens[row].tolist(), level.scores[row].tolist(), strict=True):
                candidates.append((score, len(candidates), (*above, token)))
    return {path for _, _, path in sorted(candidates, key=lambda c: (-c[0], c[1]))[:budget]}


def paths_of(tree: DraftTree) -> list[tuple[int, ...]]:
    paths: list[tuple[int, ...]] = [()]
    for slot in range(1, tree.num_slots):
        paths.append((*paths[int(tree.parents[slot])], int(tree.tokens[slot])))
    return paths


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.sampled_from([2, 3, 1000]))
def test_the_tree_is_the_best_candidates_and_closed_under_parents(
    seed: int, depth: int, top_k: int, budget: int, grid: int
) -> None:
    levels = grow(TreePolicy("dynamic", depth, top_k, budget), seed, grid)
    tree = select_tree(levels, torch.tensor(5), budget)
    paths = paths_of(tree)
    assert set(paths[1:]) == slow_tree(levels, budget)
    assert len(set(paths)) == len(paths)
    assert tree.tokens[0] == 5
    assert int(tree.parents[0]) == 0
    assert all(0 <= int(tree.parents[s]) < s for s in range(1, tree.num_slots))
    assert [len(p) for p in paths] == tree.depths.tolist()
    for slot in range(1, tree.num_slots):
        parent = int(tree.parents[slot])
        assert tree.scores[slot] == tree.scores[parent] + tree.logprobs[slot]
        assert tree.scores[slot] <= tree.scores[parent]


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, -0.0, -1.5, 2.0, -float("inf")]), min_size=1, max_size=30), st.integers(1, 35))
def test_stable_topk_breaks_ties_by_index(values: list[float], k: int) -> None:
    wanted = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert stable_topk(torch.tensor(values), k).tolist() == wanted


def test_a_score_that_is_not_finite_is_flagged_and_never_chosen() -> None:
    logits = torch.tensor([[0.0, float("nan"), 1.0]])
    level = propose(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(1), torch.zeros(1), 2)
    assert not level.all_finite


def test_root_only_is_one_slot() -> None:
    tree = root_only(torch.tensor(3))
    assert (tree.num_slots, int(tree.tokens[0]), int(tree.parents[0])) == (1, 3, 0)


@pytest.mark.parametrize("field", ["depth", "top_k", "budget"])
def test_a_policy_of_nothing_is_refused(field: str) -> None:
    values = {"depth": 1, "top_k": 1, "budget": 1, field: 0}
    with pytest.raises(UsageError, match=field):
        TreePolicy("dynamic", **values)
