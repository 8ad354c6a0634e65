"""Trains the demo models from scratch: each stage leaves its result in the work folder and is passed over if it is
there, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from specscope.engine.drafters.draft_vocab import BuiltVocab, build_draft_vocab
from specscope.engine.drafters.eagle3.files import default_hidden_state_indices, load_head, save_head
from specscope.engine.drafters.early_exit.head import load_exit_head, save_exit_head
from specscope.engine.lab.training.card import render_card
from specscope.engine.lab.training.corpus import Document, load_corpus
from specscope.engine.lab.training.exit_head import ExitHeadRecipe, train_exit_head
from specscope.engine.lab.training.head import HeadRecipe, train_head
from specscope.engine.lab.training.measure import Acceptance, held_out_prompts, measure_acceptance, repeated_share
from specscope.engine.lab.training.schedule import logged_seconds
from specscope.engine.lab.training.self_text import generate_self_text
from specscope.engine.lab.training.teacher import TeacherRecipe, held_out_loss, save_teacher, train_teacher
from specscope.engine.lab.training.tokenizer import (
    END_OF_TEXT_ID,
    bigram_loss,
    encode_stream,
    save_tokenizer,
    train_tokenizer,
)
from specscope.engine.lab.training.unlikelihood import UnlikelihoodRecipe, train_against_repetition
from specscope.engine.load.models import load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice
from specscope.engine.tree.policy import TreePolicy, chain_policy
from specscope.tracer.errors import UsageError

SELF_TEXT_LENGTH = 256
MEASURED_PROMPTS = 60
MEASURED_TOKENS = 64
MEASURED_BUDGETS = (4, 8, 16, 32)
EXIT_HEAD_POLICIES = {
    "chain_depth_1": chain_policy(1),  # its accepted length is the share of drafts that hold, as a pipeline has it
    "chain_depth_4": chain_policy(4),
    "dynamic_budget_16": TreePolicy(kind="dynamic", depth=5, top_k=4, budget=16),
}
DEMO_PROMPTS = 6
DEMO_EXIT_LAYER = 4  # of the head that is taken unless another layer is asked for


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What to train, on what, where."""

    corpus: Path
    work: Path
    teacher: TeacherRecipe
    unlikelihood: UnlikelihoodRecipe
    head: HeadRecipe
    exit_heads: tuple[ExitHeadRecipe, ...]
    self_text_rows: int
    device: torch.device
    compiled: bool
    given_teacher: Path | None = None  # trained before: its folder; only exit heads are trained for it

    @property
    def teacher_folder(self) -> Path:
        """Where the teacher and its tokenizer lie."""
        return self.given_teacher or self.work / "teacher"

    def exit_head_folder(self, recipe: ExitHeadRecipe) -> Path:
        """Where the exit head of ``recipe`` is written."""
        layer = recipe.exit_layer
        return self.work / ("exit_head" if layer == DEMO_EXIT_LAYER else f"exit_head_{layer}")


def run_pipeline(plan: TrainingPlan) -> dict[str, Any]:
    """Every stage in order. Returns the measurements, which also lie in ``measurements.json``.

    Raises:
        UsageError: where a given teacher is missing, or has too few layers for an exit head.
    """
    if plan.given_teacher is not None:
        return _train_exit_heads_alone(plan)
    _check_exit_layers(plan, plan.teacher.num_layers)
    plan.work.mkdir(parents=True, exist_ok=True)
    documents = load_corpus(plan.corpus)
    streams = _tokenize(plan, documents)
    _train_teacher(plan, streams)
    rows = _self_text(plan, streams["train"])
    _train_head(plan, rows)
    for recipe in plan.exit_heads:
        _train_exit_head(plan, recipe, rows)
    return measure(plan, documents, streams, rows)


def _train_exit_heads_alone(plan: TrainingPlan) -> dict[str, Any]:
    """Exit heads for the teacher that is given, on text that it writes, and how often what they draft holds."""
    _check_given_teacher(plan)
    plan.work.mkdir(parents=True, exist_ok=True)
    documents = load_corpus(plan.corpus)
    rows = _self_text(plan, _tokenize(plan, documents)["train"])
    for recipe in plan.exit_heads:
        _train_exit_head(plan, recipe, rows)
    prompts = held_out_prompts(documents, MEASURED_PROMPTS, seed=3)
    result = {"exit_heads": _describe_exit_heads(plan, prompts), "seconds": _seconds(plan)}
    (plan.work / "measurements.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


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
            f"got a teacher of architecture {architectures}, but exit heads are trained for LlamaForCausalLM only: "
            "give another teacher"
        )
    _check_exit_layers(plan, num_layers)


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
        for name in names:
            np.save(paths[name], encode_stream(tokenizer, split[name]))
    return {name: np.load(path) for name, path in paths.items()}


def _tokenizer(plan: TrainingPlan, documents: list[Document]) -> Tokenizer:
    """The given teacher's, or one trained on ``documents``."""
    if plan.given_teacher is not None:
        return Tokenizer.from_file(str(plan.teacher_folder / "tokenizer.json"))
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


def _teacher(plan: TrainingPlan) -> LlamaForCausalLM:
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(plan.teacher_folder, dtype=torch.float32)
    torch.nn.Module.to(model.eval(), plan.device)
    return model


def _self_text(plan: TrainingPlan, stream: NDArray[np.int64]) -> NDArray[np.int64]:
    path = plan.work / "self_text.npy"
    if not path.exists():
        begun = time.monotonic()
        rows = generate_self_text(
            _teacher(plan), stream, num_rows=plan.self_text_rows, length=SELF_TEXT_LENGTH, seed=plan.head.seed
        )
        np.save(path, rows)
        _note_time(plan, "self_text", begun)
    result: NDArray[np.int64] = np.load(path)
    return result


def _train_head(plan: TrainingPlan, rows: NDArray[np.int64]) -> None:
    if (plan.work / "drafter" / "model.safetensors").exists():
        return
    teacher = _teacher(plan)
    vocab = _draft_vocab(plan, rows).vocab
    head = train_head(
        plan.head,
        teacher,
        rows=rows,
        vocab=vocab,
        folder=plan.work / "head_state",
        device=plan.device,
        compiled=plan.compiled,
    )
    save_head(head.cpu(), plan.work / "drafter", default_hidden_state_indices(teacher.config.num_hidden_layers))


def _train_exit_head(plan: TrainingPlan, recipe: ExitHeadRecipe, rows: NDArray[np.int64]) -> None:
    folder = plan.exit_head_folder(recipe)
    if (folder / "model.safetensors").exists():
        return
    state = folder.with_name(f"{folder.name}_state")
    head = train_exit_head(recipe, _teacher(plan), rows=rows, folder=state, device=plan.device)
    save_exit_head(head.cpu().to(torch.bfloat16), folder)


def _draft_vocab(plan: TrainingPlan, rows: NDArray[np.int64]) -> BuiltVocab:
    """The most frequent ids of the self-written text, end-of-text among them: a head that cannot propose it wastes a
    step at every end."""
    return build_draft_vocab(
        [rows],
        plan.head.draft_vocab_size,
        plan.teacher.vocab_size,
        required_ids=[END_OF_TEXT_ID],
        cache=plan.work / "draft_vocab.json",
        warn=lambda message: print(message, flush=True),
    )


def _clocked(plan: TrainingPlan) -> dict[str, int]:
    """What each finished stage took by its own clock, which runs from where the stage was last resumed."""
    path = plan.work / "seconds.json"
    seconds: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    return seconds


def _seconds(plan: TrainingPlan) -> dict[str, int]:
    """What each finished stage took: the long trainings by the rates in their logs, which interruptions do not touch;
    the others by their own clocks."""
    updates = {
        "teacher": plan.teacher.batch_size * plan.teacher.length,
        "head": plan.head.batch_size * SELF_TEXT_LENGTH,
    }
    for recipe in plan.exit_heads:
        updates[plan.exit_head_folder(recipe).name] = recipe.batch_size * SELF_TEXT_LENGTH
    logs = {name: plan.work / f"{name}_state" / "log.jsonl" for name in updates}
    return _clocked(plan) | {name: logged_seconds(log, updates[name]) for name, log in logs.items() if log.exists()}


def _note_time(plan: TrainingPlan, stage: str, begun: float) -> None:
    seconds = _clocked(plan)
    seconds[stage] = round(seconds.get(stage, 0) + time.monotonic() - begun)
    (plan.work / "seconds.json").write_text(json.dumps(seconds))


def measure(
    plan: TrainingPlan, documents: list[Document], streams: dict[str, NDArray[np.int64]], rows: NDArray[np.int64]
) -> dict[str, Any]:
    """Held-out loss beside the bigram's, accepted length and repetition at several budgets; written with the card."""
    prompts = held_out_prompts(documents, MEASURED_PROMPTS, seed=3)
    result = {
        "corpus": {
            "files": {"train": sum(not d.held_out for d in documents), "held_out": sum(d.held_out for d in documents)},
            "tokens": {name: len(stream) for name, stream in streams.items()},
        },
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": str(plan.device),
            "python": platform.python_version(),
        },
        "seconds": _seconds(plan),
        "teacher": _measure_teacher(plan, streams),
        "head": _describe_head(plan, rows),
        "exit_heads": _describe_exit_heads(plan, prompts),
        "held_out_repeated_8grams": _held_out_repetition(streams["held_out"]),
        "accepted": {
            f"budget_{budget}": _accepted(
                plan,
                prompts,
                f"eagle3:{plan.work / 'drafter'}",
                TreePolicy(kind="dynamic", depth=5, top_k=4, budget=budget),
            )._asdict()
            for budget in MEASURED_BUDGETS
        },
    }
    (plan.work / "measurements.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (plan.work / "README.md").write_text(render_card(result), encoding="utf-8")
    lines = [json.dumps({"id": p.id, "prompt": p.turns[0]}) + "\n" for p in prompts[:DEMO_PROMPTS]]
    (plan.work / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    return result


def _measure_teacher(plan: TrainingPlan, streams: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    teacher, recipe = _teacher(plan), plan.teacher
    return {
        **asdict(recipe),
        "parameters": sum(p.numel() for p in teacher.parameters()),
        "tokens_seen": recipe.num_steps * recipe.batch_size * recipe.length,
        "unlikelihood": asdict(plan.unlikelihood),
        "held_out_loss": held_out_loss(teacher, streams["held_out"], recipe.length, 400_000),
        "bigram_held_out_loss": bigram_loss(streams["train"], streams["held_out"], recipe.vocab_size),
    }


def _describe_head(plan: TrainingPlan, rows: NDArray[np.int64]) -> dict[str, Any]:
    files = load_head(plan.work / "drafter", plan.teacher.hidden_size, plan.teacher.vocab_size)
    return {
        **asdict(plan.head),
        "parameters": sum(p.numel() for p in files.head.parameters()),
        "draft_vocab_covers": _draft_vocab(plan, rows).covered_share,
        "hidden_state_indices": list(files.hidden_state_indices),
        "tokens_seen": plan.head.num_steps * plan.head.batch_size * SELF_TEXT_LENGTH,
        "self_text_rows": plan.self_text_rows,
    }


def _describe_exit_heads(plan: TrainingPlan, prompts: list[Prompt]) -> dict[str, dict[str, Any]]:
    """By the names of their folders."""
    return {plan.exit_head_folder(r).name: _describe_exit_head(plan, r, prompts) for r in plan.exit_heads}


def _describe_exit_head(plan: TrainingPlan, recipe: ExitHeadRecipe, prompts: list[Prompt]) -> dict[str, Any]:
    folder = plan.exit_head_folder(recipe)
    head = load_exit_head(folder).head
    return {
        **asdict(recipe),
        "parameters": sum(p.numel() for p in head.parameters()),
        "tokens_seen": recipe.num_steps * recipe.batch_size * SELF_TEXT_LENGTH,
        "self_text_rows": plan.self_text_rows,
        "accepted": {
            name: _accepted(plan, prompts, f"early-exit:{folder}", policy)._asdict()
            for name, policy in EXIT_HEAD_POLICIES.items()
        },
    }


def _accepted(plan: TrainingPlan, prompts: list[Prompt], drafter: str, policy: TreePolicy) -> Acceptance:
    teacher = str(plan.teacher_folder)
    choice = ModelChoice(
        teacher=teacher, drafter=drafter, mode="fused", dtype="float32", device=str(plan.device), policy=policy
    )
    return measure_acceptance(load_models(choice), prompts, MEASURED_TOKENS)


def _held_out_repetition(stream: NDArray[np.int64]) -> float:
    """Repeated 8-grams in pieces of the held-out text itself, as long as the measured outputs."""
    starts = range(0, len(stream) - MEASURED_TOKENS, MEASURED_TOKENS)
    return float(np.mean([repeated_share(stream[i : i + MEASURED_TOKENS].tolist()) for i in starts]))
