"""EAGLE-3 heads of several layers: each node's score against a slow head without a cache, and whole runs with them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.drafting import choice_of, decode, path_tokens, teachers_own
from support.head_checkpoints import Checkpoint, SlowHead
from support.tiny_models import HIDDEN, VOCAB, build_head, tiny_models

from specscope.engine.drafters.base import DraftPairs
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.drafters.eagle3.files import load_head
from specscope.engine.lab.training.head import TeacherView, unrolled_loss
from specscope.engine.run.decoding import decode as decode_text
from specscope.engine.run.prompts import Prompt
from specscope.engine.tree.policy import NO_TREE, chain_policy, parse_policy
from specscope.schemas.manifest import Mode
from specscope.tracer import TraceReader
from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace

LAYERS = 3


@pytest.fixture(scope="module")
def deep_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random head of several layers."""
    return build_head(tmp_path_factory.mktemp("deep"), num_layers=LAYERS)


def slow_head(folder: Path) -> SlowHead:
    """The same head in plain float64 numpy."""
    config = json.loads((folder / "config.json").read_text())
    weights = {
        name.replace("layers.0.", "midlayer."): tensor.numpy()
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    return SlowHead(Checkpoint(config, weights, HIDDEN))


def random_pairs(count: int, seed: int) -> DraftPairs:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3 * HIDDEN, generator=generator)
    tokens = torch.randint(0, VOCAB, (count,), generator=generator)
    return DraftPairs(list(range(count)), features, tokens, tokens.tolist())


def log_softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


@pytest.mark.parametrize("mode", ["eager", "fused"])
def test_every_node_has_the_score_of_a_slow_head_without_a_cache(
    teacher_folder: Path, deep_head: Path, mode: Mode
) -> None:
    models = tiny_models(teacher_folder, deep_head, mode)
    embed = models.teacher.embedding
    draft_ids = {int(i): n for n, i in enumerate(load_head(deep_head, HIDDEN, VOCAB).vocab.ids)}
    fed = [random_pairs(5, 0), random_pairs(3, 1), random_pairs(1, 2)]
    slow, last, count = slow_head(deep_head), (np.zeros(0), np.zeros(0)), 0
    with torch.inference_mode():
        for pairs in fed:
            tree = models.drafter.propose([pairs], models.teacher.new_cache()).tree
            for features, token in zip(pairs.features.double().numpy(), pairs.tokens, strict=True):
                last = slow.row(slow.first_hidden(features), embed(token).double().numpy(), count)
                count += 1
            for slot in range(1, tree.num_slots[0]):
                *above, token = path_tokens(tree, 0, slot)
                alone, (hidden, logits) = copy.deepcopy(slow), last
                for step, parent in enumerate(above):
                    hidden, logits = alone.row(hidden, embed(torch.tensor(parent)).double().numpy(), count + step)
                wanted = log_softmax(logits)[draft_ids[token]]
                assert float(tree.logprobs[0, slot]) == pytest.approx(wanted, abs=5e-5)


def test_training_unrolls_exactly_what_drafting_does(teacher_folder: Path, deep_head: Path) -> None:
    """Unroll step i of row t is the slow head's step i + 1 along the sequence's own tokens."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCAB, (1, 8), generator=generator)
    features = torch.randn(1, 8, 3 * HIDDEN, generator=generator)
    embedded = tiny_models(teacher_folder, deep_head).teacher.embedding(ids)
    target = torch.randn(1, 8, 40, generator=generator)
    view = TeacherView(features, embedded, target, torch.ones(1, 8, dtype=torch.bool))
    unroll, rows = 3, 5
    with torch.inference_mode():
        got = unrolled_loss(load_head(deep_head, HIDDEN, VOCAB).head, view, unroll, 0.8).loss
        losses = np.zeros((unroll, rows))
        for row in range(rows):
            slow = slow_head(deep_head)
            for pair in range(row + 1):
                fed = slow.first_hidden(features[0, pair].double().numpy())
                hidden, logits = slow.row(fed, embedded[0, pair + 1].double().numpy(), pair)
            for step in range(unroll):
                probs = torch.softmax(target[0, row + 1 + step].double(), -1).numpy()
                losses[step, row] = -(probs * log_softmax(logits)).sum()
                if step + 1 < unroll:
                    hidden, logits = slow.row(hidden, embedded[0, row + 2 + step].double().numpy(), row + 1 + step)
    assert float(got) == pytest.approx(sum(0.8**step * losses[step].mean() for step in range(unroll)), rel=1e-4)


POLICIES = {"chain": chain_policy(3), "static": parse_policy("static:pair-6", 1, 1, 1)}


@pytest.mark.parametrize(
    ("mode", "batch_size", "more"),
    [
        ("fused", 1, {}),
        ("eager", 3, {}),
        ("fused", 3, {"policy": "static"}),
        ("eager", 1, {"policy": "chain"}),
        ("fused", 2, {"drafter_window": 4}),
        ("fused", 1, {"products": "packed"}),
    ],
)
def test_the_output_is_the_teachers_and_the_oracle_has_nothing_to_say(
    tmp_path: Path, teacher_folder: Path, deep_head: Path, mode: Mode, batch_size: int, more: dict[str, Any]
) -> None:
    given = {name: POLICIES[value] if name == "policy" else value for name, value in more.items()}
    choice = choice_of(teacher_folder, f"eagle3:{deep_head}", mode, **given)
    assert decode(choice, tmp_path / "t.jsonl", batch_size) == teachers_own(teacher_folder)
    with TraceReader(tmp_path / "t.jsonl") as reader:
        assert reader.manifest.drafter.num_layers == LAYERS
        assert any(name.startswith("layers.2.") for name in reader.manifest.drafter.parameters or {})


@pytest.mark.parametrize("more", [{"cache": "paged"}, {"drafter": "eagle3+ngram"}])
def test_paged_caches_and_merged_trees_have_it_too(
    tmp_path: Path, teacher_folder: Path, deep_head: Path, more: dict[str, str]
) -> None:
    drafter = f"{more.get('drafter', 'eagle3')}:{deep_head}"
    given: dict[str, Any] = {"teacher": str(teacher_folder), "device": "cpu", "max_new_tokens": 12}
    prompt = Prompt("ids", ids=(3, 9, 27, 14, 5))
    (tree,) = decode_text(
        prompt, trace=tmp_path / "t.jsonl", drafter=drafter, cache=more.get("cache", "dense"), **given
    )
    (plain,) = decode_text(prompt, mode="baseline", **given)
    assert tree.result.output_ids == plain.result.output_ids
    assert check_trace(tmp_path / "t.jsonl").num_violations == 0


def test_both_modes_decide_alike(tmp_path: Path, teacher_folder: Path, deep_head: Path) -> None:
    for mode in ("eager", "fused"):
        decode(choice_of(teacher_folder, f"eagle3:{deep_head}", mode), tmp_path / f"{mode}.jsonl")
    assert diff_traces(tmp_path / "eager.jsonl", tmp_path / "fused.jsonl").verdict == "equal"


def test_a_step_that_drafts_nothing_leaves_all_layers_as_one_that_does(teacher_folder: Path, deep_head: Path) -> None:
    """As where the shape of a step is chosen, and is no tree."""
    kept, trees = [], []
    for idle in (True, False):
        models = tiny_models(teacher_folder, deep_head)
        drafter, cache = models.drafter, models.teacher.new_cache()
        assert isinstance(drafter, Eagle3Drafter)
        growing = drafter.policy
        with torch.inference_mode():
            drafter.begin_session(cache)
            drafter.policy = NO_TREE if idle else growing
            drafter.propose([random_pairs(6, 0)], cache)
            pairs = drafter.kept(0)
            assert pairs is not None
            assert pairs.shape[0] == LAYERS
            kept.append(pairs.clone())
            drafter.policy = growing
            trees.append(drafter.propose([random_pairs(2, 1)], cache).tree)
    assert torch.equal(*kept)
    assert torch.equal(trees[0].scores, trees[1].scores)


def test_the_parts_of_a_deeper_head_are_named_by_their_layer(deep_head: Path, head_folder: Path) -> None:
    deep, plain = (load_head(folder, HIDDEN, VOCAB).head.parts() for folder in (deep_head, head_folder))
    assert {"layer 0 hidden norm", "layer 1 input norm", "layer 2 MLP"} <= deep.keys()
    assert {"hidden norm", "MLP"} <= plain.keys()
    assert list(deep)[-1] == list(plain)[-1] == "output head"
