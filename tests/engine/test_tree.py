"""Growing trees against a slow, obvious implementation, with and without ties, alone and in batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specscope.engine.tree.grow import (
    FEW,
    DraftTree,
    Frontier,
    Level,
    child_distributions,
    grow,
    propose,
    root_only,
    select_tree,
    sorted_topk,
    stable_topk,
)
from specscope.engine.tree.policy import PRESETS, TreePolicy, chain_policy, parse_policy, static_policy
from specscope.tracer.errors import UsageError

VOCAB = 7
Logits = Callable[[tuple[int, ...]], torch.Tensor]


def random_logits(seed: int, grid: int) -> Logits:
    """Logits (V,) on a coarse grid, so that exact ties abound; a node's hang on its path alone."""

    def logits_of(path: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((seed, path)) % 2**31)
        return torch.randint(0, grid, (VOCAB,), generator=generator).float()

    return logits_of


def grown(policy: TreePolicy, rows: list[Logits]) -> list[Level]:
    """The levels of a batch whose rows have these logits."""
    paths: list[list[tuple[int, ...]]] = [[()] for _ in rows]  # of the rows fed last

    def expand(frontier: Frontier) -> torch.Tensor:
        for row, (parents, tokens) in enumerate(
            zip(frontier.parent_rows.tolist(), frontier.tokens.tolist(), strict=True)
        ):
            paths[row] = [(*paths[row][p], t) for p, t in zip(parents, tokens, strict=True)]
            # What a row sees are the tree rows of its own path, itself the last of them.
            assert frontier.seen[row].sum(dim=1).tolist() == [len(path) for path in paths[row]]
        return torch.stack([torch.stack([own(path) for path in fed]) for own, fed in zip(rows, paths, strict=True)])

    root = torch.stack([own(()) for own in rows])[:, None]
    return grow(policy, root, torch.zeros(len(rows), 1, dtype=torch.int64), expand, to_teacher=lambda tokens: tokens)


def candidates(levels: list[Level], row: int) -> list[tuple[float, tuple[int, ...]]]:
    """Score and path of every candidate of one row, in order."""
    found: list[tuple[float, tuple[int, ...]]] = []
    for level in levels:
        for at, parent in enumerate(level.parents[row].tolist()):
            above = found[parent - 1][1] if parent else ()
            pairs = zip(level.tokens[row, at].tolist(), level.scores[row, at].tolist(), strict=True)
            found += [(score, (*above, token)) for token, score in pairs]
    return found


def slow_tree(levels: list[Level], row: int, budget: int) -> set[tuple[int, ...]]:
    """The paths of the best candidates: sorted by score descending, then number; nothing clever."""
    numbered = [(-score, number, path) for number, (score, path) in enumerate(candidates(levels, row))]
    return {path for _, _, path in sorted(numbered)[:budget]}


def paths_of(tree: DraftTree, row: int) -> list[tuple[int, ...]]:
    paths: list[tuple[int, ...]] = [()]
    for slot in range(1, tree.num_slots[row]):
        paths.append((*paths[int(tree.parents[row, slot])], int(tree.tokens[row, slot])))
    return paths


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([2, 3, 1000]),
    st.integers(1, 3),
)
def test_the_tree_is_the_best_candidates_and_closed_under_parents(
    seed: int, depth: int, top_k: int, budget: int, grid: int, num_rows: int
) -> None:
    policy = TreePolicy(kind="dynamic", depth=depth, top_k=top_k, budget=budget)
    levels = grown(policy, [random_logits(seed + row, grid) for row in range(num_rows)])
    tree = select_tree(levels, torch.arange(num_rows), policy)
    for row in range(num_rows):
        paths = paths_of(tree, row)
        assert set(paths[1:]) == slow_tree(levels, row, budget)
        assert len(set(paths)) == len(paths)
        assert int(tree.tokens[row, 0]) == row
        assert int(tree.parents[row, 0]) == 0
        assert all(0 <= int(tree.parents[row, s]) < s for s in range(1, tree.num_slots[row]))
        assert [len(p) for p in paths] == tree.depths[row].tolist()
        for slot in range(1, tree.num_slots[row]):
            parent = int(tree.parents[row, slot])
            assert tree.scores[row, slot] == tree.scores[row, parent] + tree.logprobs[row, slot]
            assert tree.scores[row, slot] <= tree.scores[row, parent]


@pytest.mark.parametrize(
    "policy", [TreePolicy(kind="dynamic", depth=4, top_k=3, budget=9), parse_policy("static:bush-16", 0, 0, 0)]
)
def test_a_row_of_a_batch_grows_as_it_does_alone(policy: TreePolicy) -> None:
    rows = [random_logits(seed, 1000) for seed in range(4)]
    together = select_tree(grown(policy, rows), torch.arange(4), policy)
    for number, row in enumerate(rows):
        alone = select_tree(grown(policy, [row]), torch.tensor([number]), policy)
        assert together.proposers is None
        assert alone.proposers is None
        for field in fields(DraftTree):
            if field.name not in ("num_slots", "proposers"):
                assert torch.equal(getattr(together, field.name)[number], getattr(alone, field.name)[0]), field.name


@st.composite
def choice_lists(draw: st.DrawFn) -> list[list[int]]:
    choices: list[list[int]] = []
    level: list[list[int]] = [[]]
    for _ in range(draw(st.integers(1, 4))):
        level = [[*node, rank] for node in level for rank in sorted(draw(st.sets(st.integers(0, 3), max_size=3)))][:6]
        choices += level
    return choices if any(0 in choice for choice in choices) else [[0], *choices]


@settings(deadline=None, max_examples=100)
@given(choice_lists(), st.integers(0, 10**6))
def test_a_static_tree_has_the_nodes_that_its_choices_name(choices: list[list[int]], seed: int) -> None:
    policy = static_policy(choices, "drawn")
    logits = random_logits(seed, 5)
    tree = select_tree(grown(policy, [logits]), torch.tensor([3]), policy)

    def named(choice: list[int]) -> tuple[int, ...]:
        path: tuple[int, ...] = ()
        for rank in choice:
            scores = torch.log_softmax(logits(path), dim=-1)
            path = (*path, sorted(range(VOCAB), key=lambda token: (-float(scores[token]), token))[rank])
        return path

    assert set(paths_of(tree, 0)[1:]) == {named(choice) for choice in choices}
    assert tree.num_slots == [len(choices) + 1]
    assert all(0 <= int(tree.parents[0, s]) < s for s in range(1, tree.num_slots[0]))


def test_a_chain_is_the_best_token_after_the_best() -> None:
    logits = random_logits(5, 1000)
    policy = chain_policy(4)
    tree = select_tree(grown(policy, [logits]), torch.tensor([3]), policy)
    assert tree.parents[0].tolist() == [0, 0, 1, 2, 3]
    path: tuple[int, ...] = ()
    for slot in range(1, 5):
        path = (*path, int(logits(path).argmax()))
        assert int(tree.tokens[0, slot]) == path[-1]


def test_drawn_proposals_are_distinct_and_the_slots_distributions_are_those_drawn_from() -> None:
    from specscope.engine.drafters.draws import DraftSampler

    policy = parse_policy("static:pair-6", 0, 0, 0)
    logits = random_logits(2, 4)
    paths: list[tuple[int, ...]] = [()]

    def expand(frontier: Frontier) -> torch.Tensor:
        paths[:] = [
            (*paths[p], t) for p, t in zip(frontier.parent_rows[0].tolist(), frontier.tokens[0].tolist(), strict=True)
        ]
        return torch.stack([logits(path) for path in paths])[None]

    draw = DraftSampler(1.5, VOCAB).draw([torch.Generator().manual_seed(3)])
    root = logits(())[None, None]
    levels = grow(
        policy, root, torch.zeros(1, 1, dtype=torch.int64), expand, to_teacher=lambda tokens: tokens, draw=draw
    )
    tree = select_tree(levels, torch.tensor([0]), policy)
    nodes = paths_of(tree, 0)
    assert len(set(nodes)) == len(nodes)
    probs = child_distributions(levels, policy, tree.num_slots[0])[0]
    inner = {int(p) for p in tree.parents[0, 1:]}
    for slot, path in enumerate(nodes):
        wanted = torch.softmax(logits(path) / 1.5, dim=-1) if slot in inner else torch.zeros(VOCAB)
        assert torch.allclose(probs[slot], wanted, atol=1e-6), slot


def test_drawing_follows_the_distribution() -> None:
    from specscope.engine.drafters.draws import DraftSampler

    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    draw = DraftSampler(1.0, 4).draw([torch.Generator().manual_seed(7)])
    none = torch.zeros(1, 0, dtype=torch.int64)
    level = propose(
        logits.expand(1, 20000, 4),
        frontier=none,
        scores=torch.zeros(1, 20000),
        positions=torch.zeros(1, 1),
        width=2,
        draw=draw,
    )
    first = torch.bincount(level.tokens[0, :, 0], minlength=4) / 20000
    assert (first - logits.softmax(0)).abs().max() < 0.015
    # The second draw, given that the first was token 2, is from what is left.
    second = torch.bincount(level.tokens[0, level.tokens[0, :, 0] == 2, 1], minlength=4).float()
    left = logits.softmax(0).index_fill(0, torch.tensor([2]), 0.0)
    assert (second / second.sum() - left / left.sum()).abs().max() < 0.02


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, -0.0, -1.5, 2.0, -float("inf")]), min_size=1, max_size=30), st.integers(1, 35))
def test_stable_topk_breaks_ties_by_index(values: list[float], k: int) -> None:
    wanted = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert stable_topk(torch.tensor(values), k).tolist() == wanted
    assert sorted_topk(torch.tensor(values), k).tolist() == wanted


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**9), st.integers(1, 20))
def test_the_best_of_many_are_searched_as_they_are_sorted(seed: int, k: int) -> None:
    scores = torch.randint(-40, 3, (2, 3, FEW + 300), generator=torch.Generator().manual_seed(seed)).float()
    assert torch.equal(stable_topk(scores, k), sorted_topk(scores, k))
    assert torch.equal(stable_topk(scores[..., :FEW], k), sorted_topk(scores[..., :FEW], k))


def test_a_score_that_is_not_finite_is_flagged_in_its_row_alone() -> None:
    logits = torch.tensor([[[0.0, float("nan"), 1.0]], [[0.0, 2.0, 1.0]]])
    level = propose(
        logits,
        frontier=torch.zeros(2, 0, dtype=torch.int64),
        scores=torch.zeros(2, 1),
        positions=torch.zeros(2, 1),
        width=2,
    )
    assert level.all_finite.tolist() == [False, True]


def test_root_only_is_one_slot() -> None:
    tree = root_only(torch.tensor([3, 4]))
    assert (tree.num_slots, tree.tokens.tolist(), tree.parents.tolist()) == ([1, 1], [[3], [4]], [[0], [0]])


@pytest.mark.parametrize("field", ["depth", "top_k", "budget"])
def test_a_policy_of_nothing_is_refused(field: str) -> None:
    values = {"depth": 1, "top_k": 1, "budget": 1, field: 0}
    with pytest.raises(UsageError, match=field):
        TreePolicy(kind="dynamic", depth=values["depth"], top_k=values["top_k"], budget=values["budget"])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_as_many_nodes_as_its_name_says(name: str) -> None:
    policy = parse_policy(f"static:{name}", 0, 0, 0)
    assert policy.budget == int(name.partition("-")[2])
    assert policy.name == name


def test_a_tree_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([[1], [0], [0, 0]]))
    policy = parse_policy(f"static:{path}", 0, 0, 0)
    assert (policy.kind, policy.name, policy.depth, policy.top_k, policy.budget) == ("static", "mine", 2, 2, 3)
    assert policy.choices == ((0,), (1,), (0, 0))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[0, 0]]", "no parent"),
        ("[[1], [2], [1, 1]]", "no node has rank 0, the drafter's best; ranks count from 0"),
        ("[]", "at least one"),
        ("[[0], [0]]", "twice"),
        ("[[]]", "none of them empty"),
        ("[[-1]]", "child ranks"),
        ("[[true]]", "child ranks"),
        ("{}", "child ranks"),
        ("nonsense", "cannot read"),
    ],
)
def test_a_file_that_is_no_tree_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "tree.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        parse_policy(f"static:{path}", 0, 0, 0)


@pytest.mark.parametrize("text", ["bushy", "static:", "static:no-such", "dynamic:3"])
def test_a_tree_of_no_known_kind_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="bush-16"):
        parse_policy(text, 5, 4, 16)
