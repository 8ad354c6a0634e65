"""What came of a training: held-out loss, acceptance at several budgets, repetition; written with the model card."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.drafters.draft_vocab import DraftVocab, build_draft_vocab, count_tokens
from specscope.engine.drafters.eagle3.files import load_head
from specscope.engine.drafters.early_exit.head import load_exit_head
from specscope.engine.lab.training.card import render_card
from specscope.engine.lab.training.corpus import Document
from specscope.engine.lab.training.exit_head import ExitHeadRecipe
from specscope.engine.lab.training.head import HeadRecipe
from specscope.engine.lab.training.measure import Acceptance, held_out_prompts, measure_acceptance, repeated_share
from specscope.engine.lab.training.plan import SELF_TEXT_LENGTH, TrainingPlan, tokens_of
from specscope.engine.lab.training.start import read_statement
from specscope.engine.lab.training.teacher import held_out_loss
from specscope.engine.lab.training.tokenizer import bigram_loss
from specscope.engine.load.models import load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import DEFAULT_TREE, ModelChoice
from specscope.engine.tree.policy import TreePolicy, chain_policy

MEASURED_PROMPTS = 60
MEASURED_TOKENS = 64
MEASURED_BUDGETS = (4, 8, 16, 32)
EXIT_HEAD_POLICIES = {
    "chain_depth_1": chain_policy(1),  # its accepted length is the share of drafts that hold, as a pipeline has it
    "chain_depth_4": chain_policy(4),
    "dynamic_budget_16": DEFAULT_TREE,
}
DEMO_PROMPTS = 6


def draft_vocab(plan: TrainingPlan, recipe: HeadRecipe, rows: NDArray[np.int64]) -> DraftVocab:
    """The most frequent ids of the self-written text, the teacher's end-of-text ids among them: a head that cannot
    propose them wastes a step at every end."""
    config = plan.load_teacher().config
    ends = config.eos_token_id
    return build_draft_vocab(
        [rows],
        recipe.draft_vocab_size,
        config.vocab_size,
        required_ids=[] if ends is None else [ends] if isinstance(ends, int) else list(ends),
        cache=plan.work / "draft_vocab.json",
        warn=lambda message: print(message, flush=True),
    ).vocab


def measure_heads(plan: TrainingPlan, documents: list[Document], seconds: dict[str, int]) -> dict[str, Any]:
    """What the heads are worth that were trained for a given teacher, on held-out prompts; written to
    ``measurements.json``."""
    prompts = held_out_prompts(documents, MEASURED_PROMPTS, seed=3)
    rows: NDArray[np.int64] = np.load(plan.work / "self_text.npy")
    result = {
        "heads": {
            plan.head_folder(recipe).name: _with_acceptance(plan, recipe, rows, prompts) for recipe in plan.heads
        },
        "exit_heads": _describe_exit_heads(plan, prompts),
        "seconds": seconds,
    }
    (plan.work / "measurements.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def measure(
    plan: TrainingPlan,
    documents: list[Document],
    streams: dict[str, NDArray[np.int64]],
    rows: NDArray[np.int64],
    seconds: dict[str, int],
) -> dict[str, Any]:
    """Held-out loss beside the bigram's, accepted length and repetition at several budgets; written with the card."""
    prompts, demo = held_out_prompts(documents, MEASURED_PROMPTS, seed=3), plan.heads[0]
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
        "seconds": seconds,
        "teacher": _measure_teacher(plan, streams),
        "head": _describe_head(plan, demo, rows),
        "heads": {
            plan.head_folder(recipe).name: _with_acceptance(plan, recipe, rows, prompts) for recipe in plan.heads[1:]
        },
        "exit_heads": _describe_exit_heads(plan, prompts),
        "held_out_repeated_8grams": _held_out_repetition(streams["held_out"]),
        "accepted": _accepted_by_head(plan, demo, prompts, MEASURED_BUDGETS),
    }
    (plan.work / "measurements.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (plan.work / "README.md").write_text(render_card(result), encoding="utf-8")
    lines = [json.dumps({"id": p.id, "prompt": p.turns[0]}) + "\n" for p in prompts[:DEMO_PROMPTS]]
    (plan.work / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    return result


def _measure_teacher(plan: TrainingPlan, streams: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    teacher, recipe = plan.load_teacher(), plan.teacher
    return {
        **asdict(recipe),
        "parameters": sum(p.numel() for p in teacher.parameters()),
        "tokens_seen": recipe.num_steps * recipe.batch_size * recipe.length,
        "unlikelihood": asdict(plan.unlikelihood),
        "held_out_loss": held_out_loss(teacher, streams["held_out"], recipe.length, 400_000),
        "bigram_held_out_loss": bigram_loss(streams["train"], streams["held_out"], recipe.vocab_size),
    }


def _describe_head(plan: TrainingPlan, recipe: HeadRecipe, rows: NDArray[np.int64]) -> dict[str, Any]:
    teacher = plan.load_teacher().config
    folder = plan.head_folder(recipe)
    files, statement = load_head(folder, teacher.hidden_size, teacher.vocab_size), read_statement(folder)
    start = None if statement is None else statement.started_from
    return {
        **asdict(recipe),
        "draft_vocab_size": files.head.config.draft_vocab_size,  # those of the head that it continued from, if it did
        "intermediate_size": files.head.config.intermediate_size,
        "parameters": sum(p.numel() for p in files.head.parameters()),
        "draft_vocab_covers": files.vocab.covered_share(count_tokens([rows], teacher.vocab_size)),
        "hidden_state_indices": list(files.hidden_state_indices),
        "tokens_seen": tokens_of(recipe) if statement is None else statement.tokens_seen,
        "started_from": None if start is None else start._asdict(),
        "self_text_rows": plan.self_text_rows,
    }


def _with_acceptance(
    plan: TrainingPlan, recipe: HeadRecipe, rows: NDArray[np.int64], prompts: list[Prompt]
) -> dict[str, Any]:
    accepted = _accepted_by_head(plan, recipe, prompts, [DEFAULT_TREE.budget])
    return {**_describe_head(plan, recipe, rows), "accepted": accepted}


def _accepted_by_head(
    plan: TrainingPlan, recipe: HeadRecipe, prompts: list[Prompt], budgets: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """By the budget."""
    drafter = f"eagle3:{plan.head_folder(recipe)}"
    return {
        f"budget_{budget}": _accepted(plan, prompts, drafter, replace(DEFAULT_TREE, budget=budget))._asdict()
        for budget in budgets
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
