"""Training that continues from a head: what is added changes no draft, what is refused, and what is said of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.called import specscope
from support.tiny_models import HIDDEN, VOCAB, build_head, tiny_models

from specscope.engine.drafters.base import DraftPairs
from specscope.engine.drafters.eagle3.files import load_head, save_head
from specscope.engine.lab.training.checkpoint import save_checkpoint
from specscope.engine.lab.training.start import (
    Start,
    TrainingStatement,
    check_begun_alike,
    check_layers,
    head_from,
    load_starting_head,
    read_statement,
    stated,
    weights_digest,
    write_statement,
)
from specscope.engine.settings import DEMO_MODELS
from specscope.schemas.manifest import Mode
from specscope.tracer.errors import CheckpointError, UsageError

FED = (5, 3, 1)  # pairs of each step


def drafts(teacher: Path, head: Path, mode: Mode) -> list[tuple[torch.Tensor, ...]]:
    """Tokens, probabilities and shapes of the trees of several steps over the same pairs."""
    models = tiny_models(teacher, head, mode)
    generator = torch.Generator().manual_seed(5)
    trees: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for count in FED:
            features = torch.randn(count, 3 * HIDDEN, generator=generator)
            tokens = torch.randint(0, VOCAB, (count,), generator=generator)
            pairs = DraftPairs(list(range(count)), features, tokens, tokens.tolist())
            tree = models.drafter.propose([pairs], models.teacher.new_cache()).tree
            trees.append((tree.tokens, tree.logprobs, tree.scores, tree.parents))
    return trees


@pytest.mark.parametrize("mode", ["eager", "fused"])
@pytest.mark.parametrize("layers", [(1, 1), (1, 3), (2, 4)])
def test_added_layers_change_no_draft(
    tmp_path: Path, teacher_folder: Path, mode: Mode, layers: tuple[int, int]
) -> None:
    has, asked = layers
    folder = build_head(tmp_path / "start", num_layers=has)
    grown = head_from(load_head(folder, HIDDEN, VOCAB).head, asked)
    save_head(grown, tmp_path / "grown", (2, 4, 5))
    assert load_head(tmp_path / "grown", HIDDEN, VOCAB).head.config.num_layers == asked
    for a, b in zip(
        drafts(teacher_folder, folder, mode), drafts(teacher_folder, tmp_path / "grown", mode), strict=True
    ):
        assert all(map(torch.equal, a, b))


def stated_head(folder: Path, teacher: Path, tokens_seen: int | None = 700) -> Path:
    """A random head of two layers with a statement beside it."""
    build_head(folder, num_layers=2)
    write_statement(
        TrainingStatement(
            weights_digest=weights_digest(folder),
            teacher_weights_digest=weights_digest(teacher),
            tokens_seen=tokens_seen,
            started_from=Start("ab12", 100),
        ),
        folder,
    )
    return folder


def test_what_is_said_beside_a_head_comes_back_and_adds_up(tmp_path: Path, teacher_folder: Path) -> None:
    folder = stated_head(tmp_path / "head", teacher_folder)
    statement = read_statement(folder)
    assert statement is not None
    assert (statement.tokens_seen, statement.started_from) == (700, Start("ab12", 100))
    start = load_starting_head(folder, teacher_folder)
    assert start.start == Start(weights_digest(folder), 700)
    assert stated("head", "teacher", 50, start) == TrainingStatement(
        weights_digest="head", teacher_weights_digest="teacher", tokens_seen=750, started_from=start.start
    )
    assert stated("head", "teacher", 50, None).tokens_seen == 50


def test_of_a_head_that_says_nothing_the_tokens_are_unknown(tmp_path: Path, teacher_folder: Path) -> None:
    start = load_starting_head(build_head(tmp_path), teacher_folder)
    assert start.start == Start(weights_digest(tmp_path), None)
    assert stated("head", "teacher", 50, start).tokens_seen is None


def test_digests_are_those_of_a_trace(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    assert weights_digest(teacher_folder) == models.teacher.manifest().weights_digest
    assert weights_digest(head_folder) == models.drafter.manifest().weights_digest


def test_the_demo_head_says_what_it_is() -> None:
    start = load_starting_head(DEMO_MODELS / "drafter", DEMO_MODELS / "teacher")
    measured = json.loads((DEMO_MODELS / "measurements.json").read_text())
    assert start.start.tokens_seen == measured["head"]["tokens_seen"]
    check_layers(start, 1)


def test_another_teacher_or_fewer_layers_are_refused(tmp_path: Path, teacher_folder: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(teacher_folder, other)
    weights = {name: tensor + 1 for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    folder = stated_head(tmp_path / "head", teacher_folder)
    with pytest.raises(
        UsageError, match=rf"teacher with the weights {weights_digest(teacher_folder)}, got .* at .*oth"
    ):
        load_starting_head(folder, other)
    start = load_starting_head(folder, teacher_folder)
    check_layers(start, 2)
    with pytest.raises(UsageError, match="got --head-layers 1, wanted at least 2"):
        check_layers(start, 1)


def test_heads_that_training_cannot_feed_are_refused(tmp_path: Path, teacher_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit this teacher: fc\.weight wants features of 3 x 16"):
        load_starting_head(build_head(tmp_path / "narrow", hidden=16), teacher_folder)
    head = load_head(build_head(tmp_path / "head"), HIDDEN, VOCAB).head
    save_head(head, tmp_path / "shifted", (1, 4, 5))
    with pytest.raises(UsageError, match=r"reads the hidden states \[1, 4, 5\]; heads are trained on \[2, 4, 5\]"):
        load_starting_head(tmp_path / "shifted", teacher_folder)
    with pytest.raises(CheckpointError, match=r"no EAGLE-3 head at .*none: config\.json is missing"):
        load_starting_head(tmp_path / "none", teacher_folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"tokens_seen": 3}', '{"teacher_weights_digest": "a", "tokens_seen": -3}']
)
def test_a_damaged_statement_is_an_error(tmp_path: Path, teacher_folder: Path, text: str) -> None:
    build_head(tmp_path)
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"cannot read .*training\.json"):
        load_starting_head(tmp_path, teacher_folder)


def test_a_statement_of_other_weights_is_an_error(tmp_path: Path, teacher_folder: Path) -> None:
    folder = stated_head(tmp_path, teacher_folder)
    was = weights_digest(folder)
    build_head(folder, num_layers=1)
    with pytest.raises(
        CheckpointError, match=rf"training\.json is of a head with the weights {was}, got {weights_digest(folder)}"
    ):
        load_starting_head(folder, teacher_folder)


@pytest.mark.parametrize("given", [(), ("--teacher", "demo"), ("--head-layers", "2")])
def test_the_command_wants_a_teacher_and_a_number_of_layers(tmp_path: Path, given: tuple[str, ...]) -> None:
    done = specscope("train", "--work", tmp_path / "work", "--start-from", "demo", *given)
    assert (done.code, (tmp_path / "work").exists()) == (2, False)
    assert "got --start-from" in done.err
    assert "give --teacher and --head-layers too" in " ".join(done.err.split())


def test_the_demo_head_is_for_the_demo_teacher(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(DEMO_MODELS / "teacher", teacher)
    weights = load_file(teacher / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, teacher / "model.safetensors", {"format": "pt"})
    work = tmp_path / "work"
    done = specscope("train", "--work", work, "--start-from", "demo", "--teacher", teacher, "--head-layers", "1")
    assert (done.code, work.exists()) == (2, False)
    assert "was trained for a teacher with the weights" in " ".join(done.err.split())


def test_a_head_that_began_otherwise_is_not_taken_up(tmp_path: Path, teacher_folder: Path) -> None:
    start = load_starting_head(stated_head(tmp_path / "head", teacher_folder), teacher_folder).start
    folder, state = tmp_path / "work" / "drafter", tmp_path / "work" / "head_state"
    check_begun_alike(folder, state, start)
    module = torch.nn.Linear(2, 2)
    save_checkpoint(state, 3, module, [], start.weights_digest)
    check_begun_alike(folder, state, start)
    for other in (None, Start("cd34", 5)):
        with pytest.raises(UsageError, match=rf"began from a head with the weights {start.weights_digest}.*--work"):
            check_begun_alike(folder, state, other)
    save_checkpoint(state, 3, module, [])
    with pytest.raises(UsageError, match="began from scratch, and is to begin from a head"):
        check_begun_alike(folder, state, start)
    shutil.rmtree(state)
    finished = stated_head(folder, teacher_folder)  # its training state was taken away
    check_begun_alike(finished, state, Start("ab12", None))
    with pytest.raises(UsageError, match="began from a head with the weights ab12"):
        check_begun_alike(finished, state, start)


def test_the_threads_of_a_training_are_its_own(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    flags: list[str | Path] = [
        "--teacher",
        "demo",
        "--start-from",
        tmp_path,
        "--head-layers",
        "1",
        "--threads",
        str(before + 1),
    ]
    assert specscope("train", "--work", tmp_path / "work", *flags).code == 2
    assert torch.get_num_threads() == before
