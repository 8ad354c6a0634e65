"""The training code on a corpus of a few files: splits, baselines, losses, resuming, and the whole pipeline."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from support.tiny_models import HIDDEN, VOCAB
from torch import nn
from transformers import LlamaForCausalLM

from specscope.engine.drafters.eagle3.files import load_head
from specscope.engine.drafters.early_exit.head import load_exit_head
from specscope.engine.lab.training.checkpoint import load_checkpoint, save_checkpoint, updates_done
from specscope.engine.lab.training.corpus import Document, load_corpus
from specscope.engine.lab.training.exit_head import ExitHeadRecipe
from specscope.engine.lab.training.head import HeadRecipe
from specscope.engine.lab.training.loop import BatchLoss, Training, train
from specscope.engine.lab.training.measure import held_out_prompts, repeated_share
from specscope.engine.lab.training.online import DRAFTED, drafter_of, text_of_drafts
from specscope.engine.lab.training.pipeline import run_pipeline
from specscope.engine.lab.training.plan import TrainingPlan, state_folder, tokens_of
from specscope.engine.lab.training.schedule import batch_at, logged_seconds, rows_at, warmup_stable_decay
from specscope.engine.lab.training.start import Start, TrainingStatement, read_statement, weights_digest
from specscope.engine.lab.training.teacher import TeacherRecipe, make_optimizers, save_teacher
from specscope.engine.lab.training.tokenizer import (
    END_OF_TEXT,
    bigram_loss,
    encode_stream,
    end_of_text_id,
    save_tokenizer,
    train_tokenizer,
)
from specscope.engine.lab.training.unlikelihood import UnlikelihoodRecipe, repeated_mask
from specscope.engine.lab.training.work_folder import check_teacher, note_teacher
from specscope.engine.run.prompts import load_prompts
from specscope.tracer.errors import CheckpointError, UsageError


def write_corpus(folder: Path, files: int = 60) -> Path:
    for number in range(files):
        body = "".join(f"def f{number}_{i}(x, y={i}):\n    return x * {i} + y\n\n\n" for i in range(40))
        (folder / f"module_{number}.py").write_text(body, encoding="utf-8")
    return folder


def test_the_split_is_by_name_alone(tmp_path: Path) -> None:
    documents = load_corpus(write_corpus(tmp_path))
    held_out = {d.name for d in documents if d.held_out}
    assert 0 < len(held_out) < len(documents) / 5
    assert all(Document(d.name, "other text").held_out == d.held_out for d in documents)
    with pytest.raises(FileNotFoundError, match="no Python source"):
        load_corpus(tmp_path / "none")


def test_the_tokenizer_restores_every_text(tmp_path: Path) -> None:
    documents = load_corpus(write_corpus(tmp_path))
    tokenizer = train_tokenizer(documents, 320)
    assert tokenizer.get_vocab_size() == 320
    for text in (documents[0].text, "\tétrange — 漢字 \x00\n\n   x", "     "):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def slow_bigram(train: list[int], held_out: list[int], vocab: int) -> float:
    total = 0.0
    for context, target in itertools.pairwise(held_out):
        follows = [b for a, b in itertools.pairwise(train) if a == context]
        unigram = (train.count(target) + 1) / (len(train) + vocab)
        if not follows:
            prob = unigram
        else:
            prob = max(follows.count(target) - 0.75, 0) / len(follows)
            prob += 0.75 * len(set(follows)) / len(follows) * unigram
        total -= math.log(prob)
    return total / (len(held_out) - 1)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.lists(st.integers(0, 6), min_size=2, max_size=20))
def test_the_bigram_baseline_is_the_textbooks(train: list[int], held_out: list[int]) -> None:
    got = bigram_loss(np.array(train), np.array(held_out), 7)
    assert got == pytest.approx(slow_bigram(train, held_out, 7))


def test_repetition_is_counted() -> None:
    assert repeated_share(list(range(40))) == 0
    assert repeated_share([1, 2] * 20) == pytest.approx(31 / 33)
    mask = repeated_mask(np.array([[1, 2, 3, 1, 2, 3, 1]]), ngram=3, first=0)
    assert mask.tolist() == [[False, False, False, False, False, True, True]]
    assert not repeated_mask(np.array([[1, 2, 3, 1, 2, 3, 1]]), ngram=3, first=7).any()


def test_batches_depend_on_their_number_alone_and_an_epoch_covers_the_stream() -> None:
    stream = np.arange(1000)
    assert torch.equal(
        batch_at(stream, 3, batch_size=4, length=10, seed=0), batch_at(stream, 3, batch_size=4, length=10, seed=0)
    )
    epoch = torch.cat([batch_at(stream, step, batch_size=4, length=10, seed=0) for step in range(24)])
    assert len(epoch[:, 0].unique()) == 96


def test_the_learning_rate_rises_stays_and_falls() -> None:
    factors = [warmup_stable_decay(step, 100, warmup=10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[30] == 1
    assert factors[99] == pytest.approx(1 / 40)
    assert max(factors) == 1


def test_the_seconds_of_a_log_are_those_of_its_rates(tmp_path: Path) -> None:
    """25 updates of 100 tokens at 50 a second, 25 at 100, and a report without updates between them; the second were
    done twice."""
    reports = [(25, 50), (25, 0), (50, 1000), (50, 100)]
    lines = [json.dumps({"step": step, "of": 50, "tokens_per_s": rate}) + "\n" for step, rate in reports]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    assert logged_seconds(tmp_path / "log.jsonl", 100) == 50 + 25


def test_a_checkpoint_resumes_to_the_same_weights(tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6))

    def update(module: nn.Module, optimizers: list[torch.optim.Optimizer], step: int) -> None:
        data = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        module(data).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    straight = build()
    optimizers = make_optimizers(straight, 1e-2, 1e-2)
    for step in range(6):
        update(straight, optimizers, step)
        if step == 2:
            save_checkpoint(tmp_path, step + 1, straight, optimizers)
    resumed = build()
    optimizers = make_optimizers(resumed, 1e-2, 1e-2)
    first = load_checkpoint(tmp_path, resumed, optimizers)
    assert first == 3
    for step in range(first, 6):
        update(resumed, optimizers, step)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_file_beside_a_checkpoint_is_nobody_elses(tmp_path: Path) -> None:
    beside = tmp_path / "training_state.safetensors.partial"
    beside.write_text("the user's")
    module = nn.Linear(2, 2)
    for step in (1, 2):
        save_checkpoint(tmp_path, step, module, [])
    assert beside.read_text() == "the user's"
    assert load_checkpoint(tmp_path, module, []) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training_state.safetensors", beside.name]


def tiny_plan(folder: Path) -> TrainingPlan:
    """Of models that are trained in seconds; its corpus is ``folder / "corpus"``."""
    return TrainingPlan(
        corpus=folder / "corpus",
        work=folder / "work",
        teacher=TeacherRecipe(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=48,
            num_layers=8,
            num_heads=2,
            num_kv_heads=1,
            num_steps=60,
            batch_size=4,
            length=64,
        ),
        unlikelihood=UnlikelihoodRecipe(num_steps=4, rows=8, new_tokens=16, batch_size=2, length=64),
        heads=(HeadRecipe(draft_vocab_size=200, intermediate_size=48, num_steps=60, batch_size=4),),
        exit_heads=tuple(
            ExitHeadRecipe(exit_layer=layer, intermediate_size=24, num_steps=30, batch_size=4, sharp_from=20)
            for layer in (4, 2)
        ),
        self_text_rows=16,
        device=torch.device("cpu"),
        compiled=False,
    )


class StoppedError(Exception):
    """In place of Ctrl-C."""


def tiny_training(num_steps: int, *, stops_at: int | None = None) -> Training[torch.Tensor]:
    """A regression whose weights begin the same, interrupted before update ``stops_at``."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))

    def batch(step: int) -> torch.Tensor:
        if step == stops_at:
            raise StoppedError
        return torch.randn(4, 6, generator=torch.Generator().manual_seed(step))

    def loss(_: int, data: torch.Tensor) -> BatchLoss:
        value = module(data).float().square().mean()
        return BatchLoss(value, data.numel(), {"loss": value})

    return Training(
        module=module,
        optimizers=make_optimizers(module, 1e-2, 1e-2),
        num_steps=num_steps,
        schedule=lambda step: warmup_stable_decay(step, num_steps, warmup=2),
        data=batch,
        loss=loss,
        max_norm=0.5,
        report_every=2,
        checkpoint_every=3,
        evaluate=lambda: {"evaluated": 1.0},
    )


def equal_weights(a: Training[torch.Tensor], b: Training[torch.Tensor]) -> bool:
    return all(itertools.starmap(torch.equal, zip(a.module.parameters(), b.module.parameters(), strict=True)))


def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    straight = tiny_training(8)
    train(straight, tmp_path / "straight")
    for stops_at in (1, 5):  # before the first checkpoint, and two updates after it
        with pytest.raises(StoppedError):
            train(tiny_training(8, stops_at=stops_at), tmp_path / "resumed")
    resumed = tiny_training(8)
    train(resumed, tmp_path / "resumed")
    again = tiny_training(8, stops_at=0)
    train(again, tmp_path / "resumed")  # it is at its end: no update is made
    assert equal_weights(straight, resumed)
    assert equal_weights(straight, again)
    assert not equal_weights(straight, tiny_training(8)), "it was trained at all"


def test_a_training_reports_and_evaluates_where_it_should(tmp_path: Path) -> None:
    train(tiny_training(8), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if "evaluated" in line] == [3, 6, 8]


def test_rows_come_in_a_new_order_each_epoch_and_each_once() -> None:
    rows = np.arange(24).reshape(12, 2)
    epochs = [torch.cat([rows_at(rows, step, 4, seed=1) for step in range(3 * e, 3 * e + 3)]) for e in range(2)]
    assert all(sorted(epoch.flatten().tolist()) == list(range(24)) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert torch.equal(rows_at(rows, 4, 4, seed=1), rows_at(rows, 4, 4, seed=1))


def test_exit_heads_of_a_given_teacher_need_one_with_their_layers(tmp_path: Path) -> None:
    plan = replace(tiny_plan(tmp_path), given_teacher=tmp_path / "given")
    with pytest.raises(UsageError, match=r"no teacher at .*given: config.json is missing"):
        run_pipeline(plan)
    plan.teacher_folder.mkdir()
    (plan.teacher_folder / "tokenizer.json").write_text("{}")
    config = plan.teacher_folder / "config.json"
    for damaged in ("[]", "{", '{"architectures": []}'):
        config.write_text(damaged)
        with pytest.raises(UsageError, match=r"config\.json states no architecture and number of layers"):
            run_pipeline(plan)
    config.write_text(json.dumps({"architectures": ["GPT2LMHeadModel"], "num_hidden_layers": 8}))
    with pytest.raises(UsageError, match="GPT2LMHeadModel"):
        run_pipeline(plan)
    config.write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4}))
    with pytest.raises(UsageError, match="got --exit-layer 4, wanted 1 to 3: the teacher has 4 layers"):
        run_pipeline(plan)
    assert not plan.work.exists()


@pytest.mark.slow
def test_the_pipeline_trains_from_nothing_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specscope.engine.lab.training.describe.MEASURED_PROMPTS", 10)
    (tmp_path / "corpus").mkdir()
    plan = tiny_plan(tmp_path)
    write_corpus(plan.corpus)
    result = run_pipeline(plan)
    assert result["teacher"]["held_out_loss"] < math.log(320)
    assert result["teacher"]["bigram_held_out_loss"] > 0
    assert result["accepted"]["budget_16"]["accepted_length"] > 0
    weights = (plan.work / "teacher" / "model.safetensors").read_bytes()
    again = run_pipeline(plan)
    assert (plan.work / "teacher" / "model.safetensors").read_bytes() == weights
    assert again["accepted"]["budget_16"]["accepted_length"] == result["accepted"]["budget_16"]["accepted_length"]
    assert json.loads((plan.work / "measurements.json").read_text())["head"]["num_steps"] == 60
    card = (plan.work / "README.md").read_text()
    assert f"teacher {result['teacher']['held_out_loss']:.3f}" in card
    chain = result["exit_heads"]["exit_head"]["accepted"]["chain_depth_4"]
    assert 0 < chain["accepted_length"] < 4
    assert f"| after layer 4, chain depth 4 | {chain['accepted_length']:.2f} |" in card
    for name, layer in (("exit_head", 4), ("exit_head_2", 2)):
        assert load_exit_head(plan.work / name).head.config.exit_layer == layer
        assert 0 <= result["exit_heads"][name]["accepted"]["chain_depth_1"]["accepted_length"] <= 1
    stages = {"teacher", "unlikelihood", "self_text", "head", "exit_head", "exit_head_2"}
    assert result["seconds"].keys() == stages
    assert "specscope train --work WORK --teacher-steps 60" in card
    assert load_prompts(plan.work / "prompts.jsonl")
    # The same exit head, for a teacher that is given, on the same text.
    alone = replace(
        plan, work=tmp_path / "alone", given_teacher=plan.work / "teacher", heads=(), exit_heads=plan.exit_heads[1:]
    )
    measured = run_pipeline(alone)
    assert measured["exit_heads"] == {"exit_head_2": result["exit_heads"]["exit_head_2"]}
    assert measured["heads"] == {}
    heads = [(work / "exit_head_2" / "model.safetensors").read_bytes() for work in (plan.work, alone.work)]
    assert heads[0] == heads[1]
    assert not (alone.work / "teacher").exists()


def test_held_out_prompts_are_cut_at_lines(tmp_path: Path) -> None:
    documents = load_corpus(write_corpus(tmp_path))
    prompts = held_out_prompts(documents, 7, seed=0)
    assert len({p.id for p in prompts}) == 7
    by_name = {d.name: d for d in documents}
    for prompt in prompts:
        name, _, start = prompt.id.partition("@")
        document = by_name[name]
        assert document.held_out
        assert document.text[int(start) :].startswith(prompt.turns[0])
        assert document.text[int(start) - 1] == "\n"
        assert prompt.turns[0].endswith("\n")


def test_the_texts_are_joined_by_the_token_that_the_tokenizer_ends_a_text_with(tmp_path: Path) -> None:
    documents = [Document("a.py", "x = 1\n"), Document("b.py", "y = x\n")]
    tokenizer = train_tokenizer(documents, 300)
    tokenizer.add_special_tokens(["</s>"])
    ids = [tokenizer.encode(document.text).ids for document in documents]
    for eos in (END_OF_TEXT, "</s>"):
        save_tokenizer(tokenizer, tmp_path, 128)
        config = tmp_path / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token": eos}))
        end = end_of_text_id(tokenizer, tmp_path)
        assert tokenizer.id_to_token(end) == eos
        assert encode_stream(tokenizer, documents, end).tolist() == [*ids[0], end, *ids[1], end]


@pytest.mark.parametrize(
    ("eos", "says"),
    [(None, "names no eos_token: "), ("<end>", "names the eos_token '<end>', which its tokenizer.json")],
)
def test_a_tokenizer_that_names_no_token_of_its_own_to_end_a_text_is_refused(
    tmp_path: Path, eos: str | None, says: str
) -> None:
    tokenizer = train_tokenizer([Document("a.py", "x = 1\n")], 300)
    save_tokenizer(tokenizer, tmp_path, 128)
    config = tmp_path / "tokenizer_config.json"
    named = {name: value for name, value in json.loads(config.read_text()).items() if name != "eos_token"}
    config.write_text(json.dumps(named if eos is None else named | {"eos_token": eos}))
    with pytest.raises(UsageError, match=says):
        end_of_text_id(tokenizer, tmp_path)


def plan_for_a_given_teacher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingPlan:
    """Of one head of two layers, with a checkpoint every 4 updates, for an untrained teacher."""
    monkeypatch.setattr("specscope.engine.lab.training.describe.MEASURED_PROMPTS", 3)
    monkeypatch.setattr("specscope.engine.lab.training.head.CHECKPOINT_EVERY", 4)
    (folder / "corpus").mkdir()
    base = tiny_plan(folder)
    write_corpus(base.corpus)
    save_teacher(LlamaForCausalLM(base.teacher.config()), folder / "given")
    save_tokenizer(train_tokenizer(load_corpus(base.corpus), 320), folder / "given", 128)
    head = replace(base.heads[0], num_layers=2, num_steps=8, sharp_from=4)
    return replace(base, given_teacher=folder / "given", heads=(head,), exit_heads=())


def stop_where(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch, module: str, name: str, instead: Callable[..., Any]
) -> None:
    """Runs the training with ``instead`` in place of a function, which stops it."""
    with monkeypatch.context() as patched:
        patched.setattr(f"specscope.engine.lab.training.{module}.{name}", instead)
        with pytest.raises(StoppedError):
            run_pipeline(plan)


def stop_in_the_midst(plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two updates after a checkpoint."""

    def stopping(rows: NDArray[np.int64], step: int, batch_size: int, seed: int) -> torch.Tensor:
        if step == 6:
            raise StoppedError
        return rows_at(rows, step, batch_size, seed)

    stop_where(plan, monkeypatch, "head", "rows_at", stopping)


@pytest.mark.slow
def test_heads_of_several_layers_are_trained_for_a_given_teacher_online_too_and_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = plan_for_a_given_teacher(tmp_path, monkeypatch)
    (fixed,) = alone.heads
    online = replace(fixed, online_rows=2, online_from=2, online_reuse=2)
    plan = replace(alone, heads=(fixed, online))
    result = run_pipeline(plan)
    assert result["heads"].keys() == {"drafter_2_layers", "drafter_2_layers_online"}
    weights = [load_file(plan.head_folder(recipe) / "model.safetensors") for recipe in plan.heads]
    assert any(name.startswith("layers.1.") for name in weights[0])
    assert not torch.equal(weights[0]["fc.weight"], weights[1]["fc.weight"])
    # Interrupted after its checkpoint, the online one comes to the same weights: what it trains on is written anew.
    again = replace(plan, work=tmp_path / "again", heads=(online,))
    file = again.head_folder(online) / "model.safetensors"

    stop_in_the_midst(again, monkeypatch)
    assert not file.exists()
    run_pipeline(again)
    resumed = load_file(file)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights[1].items())
    run_pipeline(replace(again, heads=(replace(online, num_steps=12),)))
    assert updates_done(state_folder(file.parent)) == 12
    assert not torch.equal(load_file(file)["fc.weight"], resumed["fc.weight"])


@pytest.mark.slow
def test_training_continues_from_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for_a_given_teacher(tmp_path, monkeypatch)
    (recipe,) = plan.heads
    run_pipeline(plan)
    first = plan.head_folder(recipe)
    deeper = replace(recipe, num_layers=3, draft_vocab_size=64)  # not asked: the vocabulary is that of the first head
    further = replace(plan, work=tmp_path / "further", start_from=first, heads=(deeper,))
    described = run_pipeline(further)["heads"]["drafter_3_layers"]
    folder, seen = further.head_folder(deeper), tokens_of(recipe)
    assert read_statement(folder) == TrainingStatement(
        weights_digest=weights_digest(folder),
        teacher_weights_digest=weights_digest(plan.teacher_folder),
        tokens_seen=2 * seen,
        started_from=Start(weights_digest(first), seen),
    )
    assert (described["tokens_seen"], described["draft_vocab_size"], described["num_layers"]) == (2 * seen, 200, 3)
    assert described["started_from"] == {"weights_digest": weights_digest(first), "tokens_seen": seen}
    begun, ended = (load_file(f / "model.safetensors") for f in (first, folder))
    assert torch.equal(begun["d2t"], ended["d2t"])
    assert not torch.equal(begun["fc.weight"], ended["fc.weight"])
    assert ended["layers.2.mlp.down_proj.weight"].abs().max() > 0
    # Interrupted, it comes to the same weights, and goes on from nothing else.
    again = replace(further, work=tmp_path / "again")
    stop_in_the_midst(again, monkeypatch)
    with pytest.raises(UsageError, match=r"drafter_3_layers began from a head with the weights .*from scratch: give"):
        run_pipeline(replace(again, start_from=None))
    run_pipeline(again)
    assert all(map(torch.equal, load_file(again.head_folder(deeper) / "model.safetensors").values(), ended.values()))
    with pytest.raises(UsageError, match="got --head-layers 1, wanted at least 2"):
        run_pipeline(replace(again, heads=(replace(recipe, num_layers=1),)))


def stop_before(name: str, plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were killed before it calls ``name``."""

    def stopping(*_: object) -> None:
        raise StoppedError

    stop_where(plan, monkeypatch, "pipeline", name, stopping)


@pytest.mark.slow
def test_a_head_and_its_statement_are_written_by_the_next_run_where_this_one_was_killed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for_a_given_teacher(tmp_path, monkeypatch)
    monkeypatch.setattr("specscope.engine.lab.training.pipeline.measure_heads", lambda *_, **__: {})
    (recipe,) = plan.heads
    longer = replace(plan, heads=(replace(recipe, num_steps=12),))
    folder = plan.head_folder(recipe)

    def check_whole(num_steps: int) -> None:
        """The head is that of the last checkpoint, and its statement says so."""
        kept = load_file(state_folder(folder) / "training_state.safetensors")["model.fc.weight"]
        assert torch.equal(load_file(folder / "model.safetensors")["fc.weight"], kept)
        assert read_statement(folder) == TrainingStatement(
            weights_digest=weights_digest(folder),
            teacher_weights_digest=weights_digest(plan.teacher_folder),
            tokens_seen=tokens_of(replace(recipe, num_steps=num_steps)),
            started_from=None,
        )

    stop_before("write_statement", plan, monkeypatch)
    run_pipeline(plan)
    check_whole(8)
    weights = (folder / "model.safetensors").read_bytes()
    stop_before("save_head", longer, monkeypatch)
    assert (folder / "model.safetensors").read_bytes() == weights
    run_pipeline(longer)
    check_whole(12)
    stop_before("write_statement", replace(plan, heads=(replace(recipe, num_steps=16),)), monkeypatch)
    with pytest.raises(CheckpointError, match=r"training\.json is of a head with the weights"):
        read_statement(folder)
    run_pipeline(plan)  # which asks for fewer updates than were made
    check_whole(16)
    changed = (folder / "model.safetensors").stat().st_mtime_ns
    run_pipeline(plan)
    assert (folder / "model.safetensors").stat().st_mtime_ns == changed, "it was whole"


def test_a_work_folder_is_for_one_teacher_and_one_end_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(plan_for_a_given_teacher(tmp_path, monkeypatch), heads=(), self_text_rows=1)
    run_pipeline(plan)
    text = plan.work / "self_text.npy"
    written = text.read_bytes()
    run_pipeline(plan)
    other = replace(plan, given_teacher=tmp_path / "other")
    shutil.copytree(plan.teacher_folder, other.teacher_folder)
    run_pipeline(other)  # the same teacher in another place
    weights = load_file(other.teacher_folder / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()},
        other.teacher_folder / "model.safetensors",
        {"format": "pt"},
    )
    has, got = (weights_digest(each.teacher_folder) for each in (plan, other))
    with pytest.raises(UsageError, match=rf"work was begun for a teacher with the weights {has}, got {got} at .*other"):
        run_pipeline(other)
    with pytest.raises(UsageError, match="got one that is to be trained: give that teacher, or another --work"):
        run_pipeline(replace(plan, given_teacher=None))
    config = plan.teacher_folder / "tokenizer_config.json"
    named = config.read_text()
    config.write_text(json.dumps(json.loads(named) | {"eos_token": "def"}))
    with pytest.raises(
        UsageError, match=r"joined by token 0, and the teacher's tokenizer ends a text with token \d+: "
    ):
        run_pipeline(plan)
    config.write_text(json.dumps({key: value for key, value in json.loads(named).items() if key != "eos_token"}))
    with pytest.raises(UsageError, match="names no eos_token"):
        run_pipeline(plan)
    config.write_text(named)
    note = plan.work / "begun_for.json"
    note.write_text("[]")
    with pytest.raises(CheckpointError, match=r"cannot read .*begun_for\.json"):
        run_pipeline(plan)
    note.unlink()  # as before there was one
    for teacher in (plan.given_teacher, None):
        with pytest.raises(UsageError, match="holds texts and does not say for which teacher"):
            run_pipeline(replace(plan, given_teacher=teacher))
    assert text.read_bytes() == written


def test_a_teacher_that_is_trained_anew_is_not_that_of_the_texts(tmp_path: Path) -> None:
    """A folder in which all began with a teacher of its own: a note is written where an earlier version wrote none."""
    plan = tiny_plan(tmp_path)
    plan.teacher_folder.mkdir(parents=True)
    np.save(plan.work / "train.npy", np.zeros(1, dtype=np.int64))
    (plan.teacher_folder / "tokenizer.json").write_text("{}")
    weights = plan.teacher_folder / "model.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    check_teacher(plan)
    note_teacher(plan)
    check_teacher(plan)
    save_file({"a": torch.ones(1)}, weights)
    with pytest.raises(UsageError, match="was begun for a teacher with the weights"):
        check_teacher(plan)
    weights.unlink()
    with pytest.raises(UsageError, match="got one that is to be trained"):
        check_teacher(plan)


def test_online_text_goes_on_after_what_the_head_drafted(teacher_folder: Path, head_folder: Path) -> None:
    """The head's chains, whole, and after each of them the teacher's best token."""
    teacher = LlamaForCausalLM.from_pretrained(teacher_folder)
    files = load_head(head_folder, HIDDEN, VOCAB)
    drafter = drafter_of(files.head, teacher, files.vocab)
    prompts = torch.tensor([[3, 9, 27, 14, 5], [1, 40, 2, 2, 60]])
    text = text_of_drafts(teacher, drafter, prompts, 2 * (DRAFTED + 1) + 1, lambda logits: logits.argmax(-1))
    assert torch.equal(text[:, :5], prompts)
    with torch.no_grad():
        best = teacher(text).logits.argmax(-1)
    for at in (5, 5 + DRAFTED + 1, 5 + 2 * (DRAFTED + 1)):
        assert torch.equal(text[:, at], best[:, at - 1])
    covered = set(files.vocab.ids.tolist())
    assert set(text[:, 6 : 6 + DRAFTED].flatten().tolist()) <= covered
    assert not torch.equal(text[:, 6 : 6 + DRAFTED], best[:, 5 : 5 + DRAFTED]), "drafts of a random head are its own"
    alone = text_of_drafts(teacher, drafter, prompts[:1], 7, lambda logits: logits.argmax(-1))
    assert torch.equal(alone, text[:1, : 5 + 7])
