"""The n-gram drafter: its index and its trees against a slow search, and its tokens, which are the teacher's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.drafting import TOKENS, check_tree, choice_of, decode, decode_turn, first_pairs, teachers_own
from support.tiny_models import reference_generate

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters import ngram
from specscope.engine.drafters.ngram import (
    Looked,
    NgramDrafter,
    NgramIndex,
    NgramSettings,
    look_up,
    parse_ngram_settings,
)
from specscope.engine.load.models import DEMO_MODELS, load_models
from specscope.engine.loop.session import Session
from specscope.engine.run.prompts import load_prompts
from specscope.engine.settings import SamplingRule
from specscope.engine.tree.policy import PRESETS, TreePolicy, chain_policy, parse_policy, static_policy
from specscope.tracer.errors import UsageError

TEXTS = st.lists(st.integers(0, 4), min_size=1, max_size=40)
SETTINGS = st.tuples(st.integers(1, 3), st.integers(0, 5)).map(lambda two: NgramSettings(two[0], sum(two)))
POLICIES = st.one_of(
    st.builds(
        TreePolicy,
        st.just("dynamic"),
        depth=st.integers(1, 5),
        top_k=st.integers(1, 4),
        budget=st.integers(1, 20),
    ),
    st.sampled_from([chain_policy(3), static_policy(PRESETS["bush-16"], "bush-16"), static_policy([[0], [1]], "two")]),
)


def index_of(tokens: list[int], settings: NgramSettings) -> NgramIndex:
    index = NgramIndex(settings)
    index.extend(tokens)
    return index


class SlowNode(NamedTuple):
    """A path of the slow trie."""

    path: tuple[int, ...]
    ranks: tuple[int, ...]
    logprob: float
    score: float


def slow_matches(tokens: list[int], settings: NgramSettings) -> list[tuple[int, int]]:
    """(length, end) of each earlier place that ends as the text does, comparing token by token."""
    found = []
    for end in range(len(tokens) - 1):
        length = 0
        while length < min(settings.max_ngram, end + 1) and tokens[end - length] == tokens[-1 - length]:
            length += 1
        if length >= settings.min_ngram:
            found.append((length, end))
    return sorted(found, key=lambda match: (-match[0], -match[1]))[: ngram.MAX_MATCHES]


def slow_nodes(tokens: list[int], settings: NgramSettings, policy: TreePolicy) -> list[SlowNode]:
    """Every path that is proposed and has the rank to stay, level by level."""
    weights: dict[tuple[int, ...], float] = {}  # in the order of the first proposal
    for length, end in slow_matches(tokens, settings):
        follows = tokens[end + 1 : end + 1 + policy.depth]
        for depth in range(1, len(follows) + 1):
            path = tuple(follows[:depth])
            weights[path] = weights.get(path, 0) + 2**length
    found = [SlowNode((), (), 0.0, 0.0)]
    for node in found:
        children = [path for path in weights if path[:-1] == node.path]
        total = sum(weights[path] for path in children) + ngram.REST_WEIGHT
        for rank, path in enumerate(sorted(children, key=lambda path: -weights[path])[: policy.top_k]):
            logprob = math.log(weights[path] / total)
            found.append(SlowNode(path, (*node.ranks, rank), logprob, node.score + logprob))
    return sorted(found[1:], key=lambda node: (len(node.ranks), node.ranks))


def slow_tree(nodes: list[SlowNode], policy: TreePolicy) -> list[SlowNode]:
    """Those that a fixed tree names; or the best, taken one by one among the children of what was taken."""
    if policy.is_fixed:
        return [node for node in nodes if node.ranks in policy.choices]
    taken: list[SlowNode] = []
    while len(taken) < policy.budget:
        inside = {(), *(node.ranks for node in taken)}
        open_nodes = [node for node in nodes if node.ranks[:-1] in inside and node.ranks not in inside]
        if not open_nodes:
            break
        taken.append(max(open_nodes, key=lambda node: node.score))  # the first of equal ones
    return sorted(taken, key=nodes.index)


def path_of(nodes: list[Looked], node: Looked) -> tuple[int, ...]:
    above = path_of(nodes, nodes[node.parent - 1]) if node.parent else ()
    return (*above, node.token)


@given(TEXTS, SETTINGS, POLICIES)
def test_a_lookup_equals_a_slow_search(tokens: list[int], settings: NgramSettings, policy: TreePolicy) -> None:
    lookup = look_up(index_of(tokens, settings), policy)
    wanted = slow_tree(slow_nodes(tokens, settings, policy), policy)
    got = [SlowNode(path_of(lookup.nodes, n), n.ranks, n.logprob, n.score) for n in lookup.nodes]
    assert got == wanted
    assert all(node.logprob < 0 for node in got)
    everything = TreePolicy(kind="dynamic", depth=policy.depth, top_k=1024, budget=4096)
    assert lookup.num_candidates == len(slow_nodes(tokens, settings, everything))


def test_a_lookup_stops_at_the_longest_and_latest_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "MAX_MATCHES", 3)
    tokens, settings = [1, 2, 0, 1, 2, 4, 2, 3, 2, 3, 1, 2], NgramSettings(1, 8)
    found = [(match.length, match.end) for match in index_of(tokens, settings).matches()]
    assert found == slow_matches(tokens, settings) == [(2, 4), (2, 1), (1, 8)]


@given(TEXTS, st.lists(st.tuples(st.integers(0, 60), TEXTS), max_size=4), SETTINGS)
def test_an_index_that_shrank_is_that_of_the_shorter_text(
    tokens: list[int], changes: list[tuple[int, list[int]]], settings: NgramSettings
) -> None:
    index = index_of(tokens, settings)
    for length, more in changes:
        index.truncate(length)
        index.extend(more)
        tokens = [*tokens[:length], *more]
    fresh = index_of(tokens, settings)
    assert (index.tokens, index._ends) == (fresh.tokens, fresh._ends)


def test_a_sure_continuation_is_drafted_as_a_whole() -> None:
    lookup = look_up(
        index_of([5, 6, 7, 8, 9, 1, 5, 6], NgramSettings()), TreePolicy(kind="dynamic", depth=4, top_k=2, budget=6)
    )
    assert [node.token for node in lookup.nodes] == [7, 8, 9, 1]
    assert [node.parent for node in lookup.nodes] == [0, 1, 2, 3]
    assert lookup.nodes[3].score == pytest.approx(4 * math.log(4 / (4 + ngram.REST_WEIGHT)))


def test_rows_of_unlike_trees_are_padded_and_the_tokens_follow_the_pairs() -> None:
    drafter = NgramDrafter(TreePolicy(kind="dynamic", depth=3, top_k=2, budget=6), NgramSettings())
    cache = TreeCache(1, 8, 3)
    drafter.begin_session(cache)
    contexts = [[1, 2, 3, 4, 1, 2], [9], [3, 4, 3, 5, 3]]
    for row, context in enumerate(contexts):
        drafter.begin_turn(row, context, 0)
    assert drafter.num_pairs == [0, 0, 0]
    draft = drafter.propose([first_pairs(c, t) for c, t in zip(contexts, (3, 8, 4), strict=True)], cache)
    assert (draft.kv_before, draft.kv_after, drafter.num_pairs) == ([0, 0, 0], [6, 1, 5], [6, 1, 5])
    assert draft.tree.num_slots == [4, 1, 4]
    assert draft.tree.tokens.tolist() == [[3, 4, 1, 2], [8, 8, 8, 8], [4, 3, 5, 3]]
    assert (draft.levels, draft.num_candidates) == (None, [3, 0, 3])
    check_tree(draft.tree)
    drafter.drop_row(0)  # row 2 takes its place
    assert drafter.num_pairs == [5, 1]
    drafter.begin_turn(0, [3, 4, 3, 7], 2)
    assert drafter.num_pairs == [2, 1]
    drafter.begin_turn(1, [2, 4], 0)  # another conversation: not even the first token is the same
    draft = drafter.propose([first_pairs([3, 7], 3), first_pairs([2, 4], 2)], cache)
    assert draft.tree.num_slots == [6, 3]
    assert draft.tree.tokens.tolist() == [[3, 7, 4, 3, 3, 7], [2, 4, 2, 2, 2, 2]]
    check_tree(draft.tree)


@pytest.mark.parametrize("mode", ["eager", "fused"])
@pytest.mark.parametrize("tree", ["dynamic", "chain", "static:bush-16"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_are_the_teachers_own(
    teacher_folder: Path, tmp_path: Path, mode: str, tree: str, batch_size: int
) -> None:
    choice = choice_of(teacher_folder, "ngram", mode, policy=parse_policy(tree, 4, 3, 9))
    assert decode(choice, tmp_path / "trace.jsonl", batch_size) == teachers_own(teacher_folder)


def test_a_second_turn_keeps_what_is_known_and_changes_nothing(teacher_folder: Path) -> None:
    models = load_models(choice_of(teacher_folder, "ngram"))
    session = Session(models.teacher, models.drafter)
    context = [5, 9, 2, 33, 8]
    for more in ([4, 4, 12], [30], [9, 9]):
        steps = decode_turn(session, context)
        wanted = reference_generate(teacher_folder, context, TOKENS)
        assert session.result.output_ids == wanted
        assert [step.drafter_pairs for step in steps] == [step.commit.committed_before for step in steps]
        context = context + wanted + more
    decode_turn(session, [5, 9, 7])
    assert session.result.output_ids == reference_generate(teacher_folder, [5, 9, 7], TOKENS)


def test_the_demos_repetitions_are_found() -> None:
    """The demo's teacher repeats its context often enough for a lookup to pay."""
    prompts = load_prompts(DEMO_MODELS / "prompts.jsonl")[:3]
    models = load_models(choice_of("demo", "ngram", policy=TreePolicy(kind="dynamic", depth=5, top_k=4, budget=16)))
    alone = load_models(choice_of("demo", "none"))
    tokenizer = models.teacher.tokenizer
    assert tokenizer is not None
    accepted: list[int] = []
    for prompt in prompts:
        session, plain = Session(models.teacher, models.drafter), Session(alone.teacher, alone.drafter)
        ids = list(tokenizer(prompt.turns[0]).input_ids)
        decode_turn(session, ids, 40)
        decode_turn(plain, ids, 40)
        assert session.result.output_ids == plain.result.output_ids
        accepted += session.result.accepted_lengths
    assert sum(accepted) / len(accepted) > 0.5


def test_what_cannot_be_looked_up_is_refused(teacher_folder: Path) -> None:
    drawn = SamplingRule("sampling", temperature=0.8, draft="sampled")
    with pytest.raises(UsageError, match="no distribution to draw them from: drop it"):
        load_models(choice_of(teacher_folder, "ngram", policy=chain_policy(3), rule=drawn))
    for text, message in (
        ("8", "got drafter ngram:8, wanted ngram, or ngram:MIN-MAX"),
        ("3-2", "got n-grams of 3 to 2 tokens, wanted 1 <= MIN <= MAX <= 64"),
        ("0-2", "got n-grams of 0 to 2"),
        ("2-65", "got n-grams of 2 to 65"),
    ):
        with pytest.raises(UsageError, match=message):
            load_models(choice_of(teacher_folder, f"ngram:{text}"))
    assert parse_ngram_settings("") == NgramSettings(1, 8)
    manifest = load_models(choice_of(teacher_folder, "ngram:2-5")).drafter.manifest()
    assert (manifest.kind, manifest.settings) == ("ngram", {"max_ngram": 5, "min_ngram": 2})
    drafter = NgramDrafter(chain_policy(2), NgramSettings())
    with pytest.raises(ValueError, match="a lookup draws nothing"):
        drafter.propose([], TreeCache(1, 8), [torch.Generator()])
