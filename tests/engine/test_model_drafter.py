"""A small model as the drafter: its trees against forwards without a cache, and its tokens, the teacher's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.drafting import (
    TOKENS,
    check_tree,
    choice_of,
    decode,
    decode_turn,
    first_pairs,
    path_tokens,
    teachers_own,
)
from support.tiny_models import POLICY, VOCAB, build_teacher, reference_generate, teacher_config
from transformers import AutoModelForCausalLM

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.model import ModelDrafter
from specscope.engine.load.models import DEMO_MODELS, load_models
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.run.prompts import load_prompts
from specscope.engine.settings import SamplingRule
from specscope.engine.tree.policy import chain_policy, parse_policy
from specscope.tracer.errors import UsageError

TOKENIZER = DEMO_MODELS / "teacher" / "tokenizer.json"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that is another architecture than the teacher, with the same vocabulary."""
    return build_teacher(tmp_path_factory.mktemp("model"), "qwen3")


@pytest.mark.parametrize("mode", ["eager", "fused"])
@pytest.mark.parametrize("tree", ["dynamic", "chain", "static:bush-16"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_are_the_teachers_own(
    teacher_folder: Path, model_folder: Path, tmp_path: Path, mode: str, tree: str, batch_size: int
) -> None:
    choice = choice_of(teacher_folder, f"model:{model_folder}", mode, policy=parse_policy(tree, 4, 3, 9))
    assert decode(choice, tmp_path / "trace.jsonl", batch_size) == teachers_own(teacher_folder)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_is_drawn_does_not_hang_on_the_batch(
    teacher_folder: Path, model_folder: Path, tmp_path: Path, batch_size: int
) -> None:
    rule = SamplingRule("sampling", temperature=0.8, draft="sampled")
    choice = choice_of(teacher_folder, f"model:{model_folder}", policy=chain_policy(3), rule=rule)
    assert decode(choice, tmp_path / "1.jsonl") == decode(choice, tmp_path / "b.jsonl", batch_size)


def test_a_teacher_that_drafts_for_itself_is_always_right(teacher_folder: Path) -> None:
    models = load_models(choice_of(teacher_folder, f"model:{teacher_folder}", policy=chain_policy(5)))
    session = Session(models.teacher, models.drafter)
    decode_turn(session, [5, 9, 2], 19)
    assert session.result.accepted_lengths == [5, 5, 5]


@pytest.mark.parametrize("lengths", [[5], [1, 7, 3]])
def test_trees_are_ranked_by_the_models_own_probabilities(
    teacher_folder: Path, model_folder: Path, lengths: list[int]
) -> None:
    """Two proposals behind each context; every node's log-probability again, from its whole text alone."""
    drafter = load_models(choice_of(teacher_folder, f"model:{model_folder}")).drafter
    small = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(3)
    contexts = [torch.randint(0, VOCAB, (n,), generator=generator).tolist() for n in lengths]
    cache = TreeCache(1, 8, len(lengths))
    drafter.begin_session(cache)
    for row, context in enumerate(contexts):
        drafter.begin_turn(row, context, 0)
    with torch.inference_mode():
        for more in ([11], [30, 4]):
            fed = [first_pairs(c[drafter.num_pairs[row] :], more[-1]) for row, c in enumerate(contexts)]
            if len(more) > 1:
                fed = [first_pairs([0, *more[:-1]], more[-1])] * len(lengths)
            draft = drafter.propose(fed, cache)
            contexts = [[*context, *more] for context in contexts]
            assert draft.kv_after == drafter.num_pairs == [len(context) - 1 for context in contexts]
            check_tree(draft.tree)
            for row, context in enumerate(contexts):
                for slot in range(1, draft.tree.num_slots[row]):
                    *before, token = path_tokens(draft.tree, row, slot)
                    logits = small(torch.tensor([[*context, *before]])).logits[0, -1]
                    wanted = torch.log_softmax(logits, dim=-1)[token]
                    torch.testing.assert_close(draft.tree.logprobs[row, slot], wanted, rtol=1e-4, atol=1e-4)


def test_its_cache_holds_a_token_more_than_there_are_pairs(teacher_folder: Path, model_folder: Path) -> None:
    models = load_models(choice_of(teacher_folder, f"model:{model_folder}"))
    drafter = models.drafter
    assert isinstance(drafter, ModelDrafter)
    session, context = Session(models.teacher, models.drafter), [5, 9, 2, 33, 8]
    fed: list[int] = []
    drafter._model.model.model.layers[0].register_forward_pre_hook(lambda _, args: fed.append(args[0].shape[1]))
    for more in ([4, 4, 12], [30], [9, 9]):
        known = drafter._cache.committed_lengths[0]
        fed.clear()
        for step in session.decode(context, StopRules(TOKENS, [], [])):
            assert step.drafter_pairs == step.commit.committed_before
            assert drafter._cache.committed_lengths == [step.commit.committed_before + 1]
            assert drafter._cache.tail_length == 0
        assert fed[0] == len(context) + 1 - min(known, len(context))  # what is known is not fed again
        assert session.result.output_ids == reference_generate(teacher_folder, context, TOKENS)
        context = context + session.result.output_ids + more
    decode_turn(session, [7, 9])
    assert session.result.output_ids == reference_generate(teacher_folder, [7, 9], TOKENS)


def test_a_long_prompt_is_taken_in_in_chunks(
    teacher_folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = [3, *range(2, 50), 7, 9]
    choice = choice_of(teacher_folder, f"model:{model_folder}")
    accepted = []
    for rows in (1024, 7):
        monkeypatch.setattr("specscope.engine.drafters.model.PREFILL_ROWS", rows)
        models = load_models(choice)
        session = Session(models.teacher, models.drafter)
        decode_turn(session, prompt)
        assert session.result.output_ids == reference_generate(teacher_folder, prompt, TOKENS)
        accepted.append(session.result.accepted_lengths)
    assert accepted[0] == accepted[1]


def test_the_demo_drafts_for_itself() -> None:
    models = load_models(choice_of("demo", "model:demo", policy=chain_policy(4)))
    assert models.teacher.tokenizer is not None
    for prompt in load_prompts(DEMO_MODELS / "prompts.jsonl")[:2]:
        session = Session(models.teacher, models.drafter)
        decode_turn(session, list(models.teacher.tokenizer(prompt.turns[0]).input_ids), 31)
        assert session.result.accepted_lengths == [4] * 6


def test_models_of_other_vocabularies_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    config = teacher_config("llama")
    config.vocab_size = VOCAB + 2
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    with pytest.raises(UsageError, match=rf"has {VOCAB + 2} ids, the teacher's {VOCAB}; give a model of the same"):
        load_models(choice_of(teacher_folder, f"model:{tmp_path / 'wide'}"))
    for name in ("teacher", "model"):
        shutil.copytree(teacher_folder, tmp_path / name)
        shutil.copy(TOKENIZER, tmp_path / name)
    same = choice_of(tmp_path / "teacher", f"model:{tmp_path / 'model'}")
    load_models(same)
    with (tmp_path / "model" / "tokenizer.json").open("a") as file:
        file.write("\n")
    with pytest.raises(UsageError, match=r"its tokenizer\.json has digest \w+, the teacher's \w+; give a model with"):
        load_models(same)
    with pytest.raises(UsageError, match="give --drafter model:PATH"):
        load_models(choice_of(teacher_folder, "model"))
    with pytest.raises(UsageError, match="no teacher at 'nowhere'"):
        load_models(choice_of(teacher_folder, "model:nowhere"))


def test_the_manifest_names_the_model(teacher_folder: Path, model_folder: Path) -> None:
    manifest = load_models(choice_of(teacher_folder, f"model:{model_folder}", policy=POLICY)).drafter.manifest()
    assert (manifest.kind, manifest.name, manifest.max_positions) == ("model", model_folder.name, 256)
    assert manifest.config_digest is not None
    assert manifest.weights_digest is not None
