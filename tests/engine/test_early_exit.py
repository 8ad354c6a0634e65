"""Drafting with the teacher's first layers: no layer runs twice, the cache holds what a plain verify forward leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.drafting import (
    PROMPTS,
    TOKENS,
    check_tree,
    choice_of,
    decode,
    decode_turn,
    first_pairs,
    path_tokens,
    teachers_own,
)
from support.shape_tables import falling
from support.tiny_models import COMMON, HIDDEN, POLICY, VOCAB, build_teacher, reference_generate
from transformers import AutoModelForCausalLM, GraniteConfig

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.strategies import STRATEGIES
from specscope.engine.drafters.base import Draft
from specscope.engine.drafters.early_exit.head import ExitHead, ExitHeadConfig, load_exit_head, save_exit_head
from specscope.engine.load.models import DEMO_MODELS, Models, load_models
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.run.prompts import load_prompts
from specscope.engine.settings import SamplingRule
from specscope.engine.teacher.model import cache_argument
from specscope.engine.tree.policy import TreePolicy, auto_policy, chain_policy, parse_policy
from specscope.engine.tree.tensors import additive_mask, tensorize
from specscope.tracer.errors import UsageError

EXIT_LAYER = 3


def build_exit_head(folder: Path, exit_layer: int = EXIT_LAYER, hidden: int = HIDDEN, vocab: int = VOCAB) -> Path:
    """A random head, whose proposals are sometimes right."""
    torch.manual_seed(4)
    save_exit_head(
        ExitHead(
            ExitHeadConfig(
                exit_layer=exit_layer, hidden_size=hidden, vocab_size=vocab, intermediate_size=24, rms_norm_eps=1e-6
            )
        ),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def exit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_exit_head(tmp_path_factory.mktemp("exit"))


@pytest.mark.parametrize("mode", ["eager", "fused"])
@pytest.mark.parametrize("tree", ["dynamic", "chain", "static:bush-16"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_are_the_teachers_own(
    teacher_folder: Path, exit_folder: Path, tmp_path: Path, mode: str, tree: str, batch_size: int
) -> None:
    choice = choice_of(teacher_folder, f"early-exit:{exit_folder}", mode, policy=parse_policy(tree, 4, 3, 9))
    assert decode(choice, tmp_path / "trace.jsonl", batch_size) == teachers_own(teacher_folder)


def test_a_shape_for_each_step_changes_no_token(teacher_folder: Path, exit_folder: Path, tmp_path: Path) -> None:
    choice = choice_of(teacher_folder, f"early-exit:{exit_folder}", "fused", policy=auto_policy(falling()))
    assert decode(choice, tmp_path / "trace.jsonl", 3) == teachers_own(teacher_folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_cache_strategy_serves(
    teacher_folder: Path, exit_folder: Path, tmp_path: Path, strategy: str, batch_size: int
) -> None:
    choice = choice_of(teacher_folder, f"early-exit:{exit_folder}")
    assert decode(choice, tmp_path / "trace.jsonl", batch_size, strategy) == teachers_own(teacher_folder)


@pytest.mark.parametrize("architecture", ["biased-llama", "qwen2", "qwen3"])
def test_every_architecture_serves(tmp_path: Path, exit_folder: Path, architecture: str) -> None:
    teacher = build_teacher(tmp_path / "teacher", architecture)
    choice = choice_of(teacher, f"early-exit:{exit_folder}")
    outputs = decode(choice, tmp_path / "trace.jsonl", prompts=PROMPTS[:2])
    assert outputs == {p.id: reference_generate(teacher, list(p.ids), TOKENS) for p in PROMPTS[:2]}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_is_drawn_does_not_hang_on_the_batch(
    teacher_folder: Path, exit_folder: Path, tmp_path: Path, batch_size: int
) -> None:
    rule = SamplingRule("sampling", temperature=0.8, draft="sampled")
    choice = choice_of(teacher_folder, f"early-exit:{exit_folder}", policy=chain_policy(3), rule=rule)
    assert decode(choice, tmp_path / "1.jsonl") == decode(choice, tmp_path / "b.jsonl", batch_size)


def test_later_turns_reuse_the_cache(teacher_folder: Path, exit_folder: Path) -> None:
    models = load_models(choice_of(teacher_folder, f"early-exit:{exit_folder}"))
    session, context = Session(models.teacher, models.drafter), [5, 9, 2, 33, 8]
    for more in ([4, 4, 12], [30], [9, 9]):
        steps = decode_turn(session, context)
        wanted = reference_generate(teacher_folder, context, TOKENS)
        assert session.result.output_ids == wanted
        assert [step.drafter_pairs for step in steps] == [step.commit.committed_before for step in steps]
        context = context + wanted + more


class RowCounter:
    """How many rows pass each layer of a teacher."""

    def __init__(self, models: Models) -> None:
        layers: Any = models.teacher.model.model.layers
        self.rows = [0] * len(layers)
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(lambda _, args, n=number: self._count(n, args[0]))

    def _count(self, number: int, hidden: torch.Tensor) -> None:
        self.rows[number] += hidden.shape[1]


def never_selected(draft: Draft) -> int:
    """Candidates that were fed to grow the tree and are not in it: the price of a tree that is chosen afterwards."""
    assert draft.levels is not None
    fed = torch.cat([level.frontier[0] for level in draft.levels]).tolist()
    tokens = torch.cat([level.tokens[0].flatten() for level in draft.levels]).tolist()
    parents = torch.cat([level.parents[0].repeat_interleave(level.tokens.shape[2]) for level in draft.levels]).tolist()

    def path(number: int) -> list[int]:
        return [*(path(parents[number] - 1) if parents[number] else []), tokens[number]]

    inside = [path_tokens(draft.tree, 0, slot) for slot in range(1, draft.tree.num_slots[0])]
    return sum(path(number) not in inside for number in fed)


@pytest.mark.parametrize("tree", ["dynamic", "chain", "static:bush-16", "one level"])
def test_every_slot_passes_every_layer_once(teacher_folder: Path, exit_folder: Path, tree: str) -> None:
    policy = (
        TreePolicy(kind="dynamic", depth=1, top_k=4, budget=4) if tree == "one level" else parse_policy(tree, 4, 3, 9)
    )
    models = load_models(choice_of(teacher_folder, f"early-exit:{exit_folder}", policy=policy))
    session = Session(models.teacher, models.drafter)
    session.begin(0, TurnRequest([5, 9, 2, 33, 8], StopRules(TOKENS, [], [])))
    counter = RowCounter(models)
    wasted = 0
    while session.rows[0].turn is not None:
        counter.rows = [0] * 8
        (step,) = session.step()
        slots, extra = step.shared.tensors.padded_slots, never_selected(step.shared.draft)
        assert counter.rows == [slots + extra] * EXIT_LAYER + [slots] * (8 - EXIT_LAYER)
        wasted += extra
        session.end_stopped()
    assert (wasted > 0) == (tree == "dynamic")


@pytest.mark.parametrize("tree", ["dynamic", "chain", "static:bush-16"])
@pytest.mark.parametrize("contexts", [[[5, 9, 2]], [[5, 9, 2], list(range(2, 30)), [7]]], ids=["alone", "ragged"])
def test_the_tail_and_the_states_are_those_of_one_whole_forward(
    teacher_folder: Path, exit_folder: Path, tree: str, contexts: list[list[int]]
) -> None:
    choice = choice_of(teacher_folder, f"early-exit:{exit_folder}", policy=parse_policy(tree, 4, 3, 9))
    models = load_models(choice)
    teacher, drafter = models.teacher, models.drafter
    session = Session(teacher, drafter, num_rows=len(contexts))
    for row, context in enumerate(contexts):
        session.begin(row, TurnRequest(context, StopRules(TOKENS, [], [])))
    pairs = [row.turn.pairs for row in session.rows if row.turn is not None and row.turn.pairs is not None]
    own, whole = session.cache.copy(), session.cache.copy()
    with torch.inference_mode():
        draft = drafter.propose(pairs, own)
        tensors = tensorize(draft.tree, own.committed_lengths, 4)
        assert draft.shared is not None
        assert own.layer_tails == [tensors.padded_slots] * EXIT_LAYER + [0] * (8 - EXIT_LAYER)
        mask = additive_mask(tensors, teacher.dtype)
        output = teacher.model(
            input_ids=tensors.token_ids,
            attention_mask=mask,
            position_ids=tensors.position_ids,
            **{cache_argument(teacher.model): whole},
            output_hidden_states=True,
        )
        torch.testing.assert_close(draft.shared.hidden, output.hidden_states[EXIT_LAYER], rtol=1e-4, atol=1e-4)
        rest = range(EXIT_LAYER, 8)
        hidden = teacher.run_layers(draft.shared.hidden, tensors.position_ids, mask, cache=own, layers=rest)
    torch.testing.assert_close(teacher.head(hidden), output.logits, rtol=1e-3, atol=1e-3)
    assert own.layer_tails == whole.layer_tails
    for row, length in enumerate(own.committed_lengths):
        places = list(range(length + tensors.padded_slots))
        torch.testing.assert_close(own.at(row, places), whole.at(row, places), rtol=1e-4, atol=1e-4)


def test_trees_are_ranked_by_the_exit_heads_probabilities(teacher_folder: Path, exit_folder: Path) -> None:
    """Every node's log-probability again, from its whole text alone and transformers' own hidden states."""
    models = load_models(choice_of(teacher_folder, f"early-exit:{exit_folder}"))
    head = load_exit_head(exit_folder).head
    teacher = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    session, context = Session(models.teacher, models.drafter), [5, 9, 2, 33, 8]
    session.begin(0, TurnRequest(context, StopRules(TOKENS, [], [])))
    (step,) = session.step()
    tree = step.shared.draft.tree
    check_tree(tree)
    with torch.inference_mode():
        for slot in range(1, tree.num_slots[0]):
            *before, token = path_tokens(tree, 0, slot)
            ids = torch.tensor([[*context, int(tree.tokens[0, 0]), *before]])
            hidden = teacher(ids, output_hidden_states=True).hidden_states[EXIT_LAYER]
            wanted = torch.log_softmax(teacher.lm_head(head(hidden[0, -1])), dim=-1)[token]
            torch.testing.assert_close(tree.logprobs[0, slot], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("tree", "least"), [("dynamic", 0.9), ("chain", 0.5)])
def test_the_demos_head_is_worth_its_layers(tree: str, least: float) -> None:
    """On these prompts an untrained head comes to 0.43 and 0.20, the demo's to 1.16 and 0.73."""
    models = load_models(choice_of("demo", "early-exit", policy=parse_policy(tree, 4, 4, 16)))
    alone = load_models(choice_of("demo", "none"))
    assert models.teacher.tokenizer is not None
    accepted: list[int] = []
    for prompt in load_prompts(DEMO_MODELS / "prompts.jsonl")[:3]:
        session, plain = Session(models.teacher, models.drafter), Session(alone.teacher, alone.drafter)
        ids = list(models.teacher.tokenizer(prompt.turns[0]).input_ids)
        decode_turn(session, ids, 32)
        decode_turn(plain, ids, 32)
        assert session.result.output_ids == plain.result.output_ids
        accepted += session.result.accepted_lengths
    assert sum(accepted) / len(accepted) > least


def edit(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of a head's folder with other settings; None leaves one out."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    config = {name: value for name, value in {**config, **changes}.items() if value is not None}
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "eagle3"}, "got kind 'eagle3', wanted 'specscope-exit-head'"),
        ({"exit_layer": None}, "exit_layer is None, wanted a positive integer"),
        ({"exit_layer": True}, "exit_layer is True, wanted a positive integer"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', wanted a positive number"),
        ({"intermediate_size": 25}, r"gate_proj.weight: got \[24, 32\], wanted \[25, 32\]"),
        ({"exit_layer": 8}, "leaves after layer 8, wanted 1 to 7, as the teacher has 8"),
        ({"vocab_size": 99}, f"reads {HIDDEN} wide states and gives 99 ids, the teacher has {HIDDEN} and {VOCAB}"),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    teacher_folder: Path, exit_folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = edit(exit_folder, tmp_path / "edited", **changes)
    with pytest.raises(UsageError, match=message):
        load_models(choice_of(teacher_folder, f"early-exit:{folder}"))


def test_folders_that_hold_no_head_are_refused(teacher_folder: Path, exit_folder: Path, tmp_path: Path) -> None:
    folder = edit(exit_folder, tmp_path / "edited")
    tensors = load_file(folder / "model.safetensors")
    tensors["bias"] = tensors.pop("norm.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"missing norm\.weight; unexpected bias"):
        load_models(choice_of(teacher_folder, f"early-exit:{folder}"))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="cannot read"):
        load_models(choice_of(teacher_folder, f"early-exit:{folder}"))
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
        with pytest.raises(UsageError, match=f"no exit head at .*: {name} is missing"):
            load_models(choice_of(teacher_folder, f"early-exit:{folder}"))
    with pytest.raises(UsageError, match="the demo's exit head fits only the demo's teacher"):
        load_models(choice_of(teacher_folder, "early-exit"))


def test_a_teacher_whose_layers_are_not_all_of_it_is_refused(exit_folder: Path, tmp_path: Path) -> None:
    config = GraniteConfig(**COMMON, embedding_multiplier=12.0, logits_scaling=8.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "granite")
    with pytest.raises(UsageError, match=r"GraniteForCausalLM.* its layers, run one by one, do not give its"):
        load_models(choice_of(tmp_path / "granite", f"early-exit:{exit_folder}"))


def test_the_manifest_says_where_it_exits(teacher_folder: Path, exit_folder: Path) -> None:
    drafter = load_models(choice_of(teacher_folder, f"early-exit:{exit_folder}", policy=POLICY)).drafter
    manifest = drafter.manifest()
    assert (manifest.kind, manifest.name, manifest.settings) == (
        "early-exit",
        exit_folder.name,
        {"exit_layer": EXIT_LAYER},
    )
    assert manifest.config_digest is not None
    assert manifest.weights_digest is not None
    drafter.begin_session(TreeCache(8, 16))
    drafter.begin_turn(0, [5, 9], 0)
    assert drafter.num_pairs == [0]
    assert first_pairs([5, 9], 2).token_list == [9, 2]
