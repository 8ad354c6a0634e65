"""Trains the demo models from scratch: each stage leaves its result in the work folder and is passed over if it is
there, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from specscope.engine.drafters.eagle3.files import WEIGHTS_NAME, default_hidden_state_indices, save_head
from specscope.engine.drafters.early_exit.head import save_exit_head
from specscope.engine.lab.training.checkpoint import updates_done
from specscope.engine.lab.training.corpus import Document, load_corpus
from specscope.engine.lab.training.describe import draft_vocab, measure, measure_heads
from specscope.engine.lab.training.exit_head import ExitHeadRecipe, train_exit_head
from specscope.engine.lab.training.head import HeadRecipe, HeadTexts, train_head
from specscope.engine.lab.training.plan import SELF_TEXT_LENGTH, TrainingPlan, state_folder, tokens_of
from specscope.engine.lab.training.schedule import logged_seconds
from specscope.engine.lab.training.self_text import generate_self_text
from specscope.engine.lab.training.start import (
    StartingHead,
    TrainingStatement,
    check_begun_alike,
    check_layers,
    is_written,
    load_starting_head,
    stated,
    weights_digest,
    write_statement,
)
from specscope.engine.lab.training.teacher import save_teacher, train_teacher
from specscope.engine.lab.training.tokenizer import encode_stream, end_of_text_id, save_tokenizer, train_tokenizer
from specscope.engine.lab.training.unlikelihood import train_against_repetition
from specscope.engine.lab.training.work_folder import check_end_of_text, check_teacher, note_teacher
from specscope.tracer.errors import UsageError

SELF_TEXT_SEED = 2  # that of the heads' recipes, whichever heads there are


def run_pipeline(plan: TrainingPlan) -> dict[str, Any]:
    """Every stage in order. Returns the measurements, which also lie in ``measurements.json``.

    Raises:
        UsageError: where a given teacher is missing, has too few layers for an exit head, or a tokenizer that names no
            token to end a text with; or the work folder was begun for another teacher, or for another such token; or a
            head cannot continue from the one that it is to start from, or began from another.
    """
    if plan.given_teacher is not None:
        return _train_heads_alone(plan)
    _check_exit_layers(plan, plan.teacher.num_layers)
    check_teacher(plan)
    _check_heads(plan, None)
    plan.work.mkdir(parents=True, exist_ok=True)
    documents = load_corpus(plan.corpus)
    streams = _tokenize(plan, documents)
    _train_teacher(plan, streams)
    note_teacher(plan)
    texts = HeadTexts(_self_text(plan, streams["train"]), streams["train"])
    _train_heads(plan, texts, None)
    return measure(plan, documents, streams, texts.rows, seconds=_seconds(plan))


def _train_heads_alone(plan: TrainingPlan) -> dict[str, Any]:
    """Heads for the teacher that is given, on text that it writes, and how often what they draft holds."""
    _check_given_teacher(plan)
    start = None if plan.start_from is None else load_starting_head(plan.start_from, plan.teacher_folder)
    _check_heads(plan, start)
    note_teacher(plan)
    documents = load_corpus(plan.corpus)
    stream = _tokenize(plan, documents)["train"]
    _train_heads(plan, HeadTexts(_self_text(plan, stream), stream), start)
    return measure_heads(plan, documents, seconds=_seconds(plan))


def _train_heads(plan: TrainingPlan, texts: HeadTexts, start: StartingHead | None) -> None:
    for head in plan.heads:
        _train_head(plan, head, texts, start)
    for exit_head in plan.exit_heads:
        _train_exit_head(plan, exit_head, texts.rows)


def _check_given_teacher(plan: TrainingPlan) -> None:
    folder = plan.teacher_folder
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UsageError(f"no teacher at {folder}: {name} is missing; give a folder as transformers saves it")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architectures, num_layers = config["architectures"], int(config["num_hidden_layers"])
    except (ValueError, LookupError, TypeError):
        raise UsageError(f"{folder / 'config.json'} states no architecture and number of layers: wanted both") from None
    if architectures != ["LlamaForCausalLM"]:
        raise UsageError(
            f"got a teacher of architecture {architectures}, but heads are trained for LlamaForCausalLM only: "
            "give another teacher"
        )
    _check_exit_layers(plan, num_layers)
    check_teacher(plan)
    check_end_of_text(plan.work, end_of_text_id(_given_tokenizer(plan), folder))


def _given_tokenizer(plan: TrainingPlan) -> Tokenizer:
    return Tokenizer.from_file(str(plan.teacher_folder / "tokenizer.json"))


def _check_heads(plan: TrainingPlan, start: StartingHead | None) -> None:
    """Before anything is trained: each head must be able to continue from ``start``, and from what there is of it."""
    for recipe in plan.heads:
        if start is not None:
            check_layers(start, recipe.num_layers)
        folder = plan.head_folder(recipe)
        check_begun_alike(folder, state_folder(folder), None if start is None else start.start)


def _check_exit_layers(plan: TrainingPlan, num_layers: int) -> None:
    for recipe in plan.exit_heads:
        if not 0 < recipe.exit_layer < num_layers:
            raise UsageError(
                f"got --exit-layer {recipe.exit_layer}, wanted 1 to {num_layers - 1}: "
                f"the teacher has {num_layers} layers"
            )


def _tokenize(plan: TrainingPlan, documents: list[Document]) -> dict[str, NDArray[np.int64]]:
    names = ("train", "held_out")
    paths = {name: plan.work / f"{name}.npy" for name in names}
    if not all(path.exists() for path in paths.values()):
        split = {"train": [d for d in documents if not d.held_out], "held_out": [d for d in documents if d.held_out]}
        tokenizer = _tokenizer(plan, split["train"])
        end = end_of_text_id(tokenizer, plan.teacher_folder)
        for name in names:
            np.save(paths[name], encode_stream(tokenizer, split[name], end))
    return {name: np.load(path) for name, path in paths.items()}


def _tokenizer(plan: TrainingPlan, documents: list[Document]) -> Tokenizer:
    """The given teacher's, or one trained on ``documents``."""
    if plan.given_teacher is not None:
        return _given_tokenizer(plan)
    tokenizer = train_tokenizer(documents, plan.teacher.vocab_size)
    save_tokenizer(tokenizer, plan.work / "teacher", plan.teacher.max_positions)
    return tokenizer


def _train_teacher(plan: TrainingPlan, streams: dict[str, NDArray[np.int64]]) -> None:
    if (plan.work / "teacher" / "model.safetensors").exists():
        return
    state = plan.work / "teacher_state"
    model = train_teacher(
        plan.teacher,
        streams["train"],
        held_out=streams["held_out"],
        folder=state,
        device=plan.device,
        compiled=plan.compiled,
    )
    begun = time.monotonic()
    state = plan.work / "unlikelihood_state"
    train_against_repetition(
        plan.unlikelihood, model, train=streams["train"], held_out=streams["held_out"], folder=state
    )
    save_teacher(model, plan.work / "teacher")
    _note_time(plan, "unlikelihood", begun)


def _self_text(plan: TrainingPlan, stream: NDArray[np.int64]) -> NDArray[np.int64]:
    path = plan.work / "self_text.npy"
    if not path.exists():
        begun = time.monotonic()
        rows = generate_self_text(
            plan.load_teacher(), stream, num_rows=plan.self_text_rows, length=SELF_TEXT_LENGTH, seed=SELF_TEXT_SEED
        )
        np.save(path, rows)
        _note_time(plan, "self_text", begun)
    result: NDArray[np.int64] = np.load(path)
    return result


def _train_head(plan: TrainingPlan, recipe: HeadRecipe, texts: HeadTexts, start: StartingHead | None) -> None:
    """Where there is a head after fewer updates, and its training state, it is trained further; one that was not
    written to the end, its statement last, is written anew from that state."""
    folder = plan.head_folder(recipe)
    state = state_folder(folder)
    done = updates_done(state)
    state_was_taken_away = not done and (folder / WEIGHTS_NAME).exists()
    if state_was_taken_away or (done >= recipe.num_steps and is_written(_statement(plan, recipe, start), folder)):
        return
    teacher = plan.load_teacher()
    head = train_head(
        recipe,
        teacher,
        texts=texts,
        vocab=draft_vocab(plan, recipe, texts.rows) if start is None else start.vocab,
        folder=state,
        device=plan.device,
        compiled=plan.compiled,
        start=start,
    )
    save_head(head.cpu(), folder, default_hidden_state_indices(teacher.config.num_hidden_layers))
    write_statement(_statement(plan, recipe, start), folder)


def _statement(plan: TrainingPlan, recipe: HeadRecipe, start: StartingHead | None) -> TrainingStatement:
    """Of the weights that lie there, if they are those after all updates that were made."""
    folder = plan.head_folder(recipe)
    num_tokens = tokens_of(replace(recipe, num_steps=updates_done(state_folder(folder))))
    return stated(weights_digest(folder), weights_digest(plan.teacher_folder), num_tokens, start)


def _train_exit_head(plan: TrainingPlan, recipe: ExitHeadRecipe, rows: NDArray[np.int64]) -> None:
    folder = plan.exit_head_folder(recipe)
    if (folder / "model.safetensors").exists():
        return
    head = train_exit_head(recipe, plan.load_teacher(), rows=rows, folder=state_folder(folder), device=plan.device)
    save_exit_head(head.cpu().to(torch.bfloat16), folder)


def _clocked(plan: TrainingPlan) -> dict[str, int]:
    """What each finished stage took by its own clock, which runs from where the stage was last resumed."""
    path = plan.work / "seconds.json"
    seconds: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    return seconds


def _seconds(plan: TrainingPlan) -> dict[str, int]:
    """What each finished stage took: the long trainings by the rates in their logs, which interruptions do not touch;
    the others by their own clocks."""
    logs = {"teacher": _Log(plan.work / "teacher_state", plan.teacher.batch_size * plan.teacher.length)}
    rows = {plan.head_folder(recipe): recipe.batch_size for recipe in plan.heads}
    rows |= {plan.exit_head_folder(recipe): recipe.batch_size for recipe in plan.exit_heads}
    for folder, batch_size in rows.items():
        state = state_folder(folder)
        logs[state.name.removesuffix("_state")] = _Log(state, batch_size * SELF_TEXT_LENGTH)
    paths = {name: log.folder / "log.jsonl" for name, log in logs.items()}
    return _clocked(plan) | {
        name: logged_seconds(path, logs[name].tokens_per_update) for name, path in paths.items() if path.exists()
    }


class _Log(NamedTuple):
    """Where a training keeps its log, and how many tokens an update of it has."""

    folder: Path
    tokens_per_update: int


def _note_time(plan: TrainingPlan, stage: str, begun: float) -> None:
    seconds = _clocked(plan)
    seconds[stage] = round(seconds.get(stage, 0) + time.monotonic() - begun)
    (plan.work / "seconds.json").write_text(json.dumps(seconds))
