"""What is to be trained, and where each result lies in the work folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from specscope.engine.lab.training.exit_head import ExitHeadRecipe
from specscope.engine.lab.training.head import HeadRecipe
from specscope.engine.lab.training.teacher import TeacherRecipe
from specscope.engine.lab.training.unlikelihood import UnlikelihoodRecipe

SELF_TEXT_LENGTH = 256
DEMO_EXIT_LAYER = 4  # of the head that is taken unless another layer is asked for


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What to train, on what, where."""

    corpus: Path
    work: Path
    teacher: TeacherRecipe
    unlikelihood: UnlikelihoodRecipe
    heads: tuple[HeadRecipe, ...]  # the first is the demo's; none for a teacher that is given, if none is asked for
    exit_heads: tuple[ExitHeadRecipe, ...]
    self_text_rows: int
    device: torch.device
    compiled: bool
    given_teacher: Path | None = None  # trained before: its folder; only heads are trained for it
    start_from: Path | None = None  # the head that the EAGLE-3 heads continue from: its folder; None: from scratch

    @property
    def teacher_folder(self) -> Path:
        """Where the teacher and its tokenizer lie."""
        return self.given_teacher or self.work / "teacher"

    def head_folder(self, recipe: HeadRecipe) -> Path:
        """Where the EAGLE-3 head of ``recipe`` is written."""
        layers = f"_{recipe.num_layers}_layers" if recipe.num_layers > 1 else ""
        return self.work / f"drafter{layers}{'_online' if recipe.online_rows else ''}"

    def exit_head_folder(self, recipe: ExitHeadRecipe) -> Path:
        """Where the exit head of ``recipe`` is written."""
        layer = recipe.exit_layer
        return self.work / ("exit_head" if layer == DEMO_EXIT_LAYER else f"exit_head_{layer}")

    def load_teacher(self) -> LlamaForCausalLM:
        """The teacher, on the plan's device."""
        model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(self.teacher_folder, dtype=torch.float32)
        torch.nn.Module.to(model.eval(), self.device)
        return model


def tokens_of(recipe: HeadRecipe) -> int:
    """Tokens that a head is trained on by ``recipe``."""
    return recipe.num_steps * recipe.batch_size * SELF_TEXT_LENGTH


def state_folder(folder: Path) -> Path:
    """Where the checkpoints of what is written to ``folder`` lie."""
    return folder.with_name("head_state" if folder.name == "drafter" else f"{folder.name}_state")
