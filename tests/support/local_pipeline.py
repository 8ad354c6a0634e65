"""A pipeline of threads in one process: the stages of ``engine.ppsd`` with queues in place of the process group."""

from __future__ import annotations

from pathlib import Path

import torch

from specscope.engine.drafters.early_exit.head import load_exit_head
from specscope.engine.lab.selftest.threads import LocalPipeline as LocalPipeline
from specscope.engine.lab.selftest.threads import local_pipeline as local_pipeline
from specscope.engine.ppsd.conductor import ExitDraft
from specscope.engine.ppsd.outcome import Drafted
from specscope.engine.ppsd.schedule import Item
from specscope.engine.ppsd.split import split_layers
from specscope.engine.ppsd.stage import Stage
from specscope.engine.teacher.files import TeacherOptions
from specscope.engine.teacher.model import Teacher
from specscope.engine.teacher.partial import TeacherPart, load_part

CPU = TeacherOptions(dtype=torch.float32, device=torch.device("cpu"), attention="eager")


def load_stages(teacher: Path, exit_layer: int, num_stages: int) -> list[Stage]:
    """The stages of a teacher on disk. The first one has the norm too, for untrained heads."""
    splits = split_layers(8, exit_layer, num_stages)
    last = len(splits) - 1
    parts = [
        TeacherPart(layers=layers, embedding=number == 0, norm=number in (0, last), output=number in (0, last))
        for number, layers in enumerate(splits)
    ]
    return [Stage(Teacher(*load_part(str(teacher), CPU, part)), part.layers) for part in parts]


def trained_draft(stage: Stage, folder: Path) -> ExitDraft:
    """The best token of the exit head in ``folder``."""
    head = load_exit_head(folder).head

    def draft(hidden: torch.Tensor, _: Item) -> Drafted:
        return Drafted(int(stage.part.output_head(head(hidden[:, -1:]))[0, 0].argmax()), None)

    return draft


def untrained_draft(stage: Stage) -> ExitDraft:
    """The best token by the teacher's own norm and output matrix."""
    return lambda hidden, _: Drafted(int(stage.logits(hidden).argmax()), None)


def perfect_draft(whole: list[int]) -> ExitDraft:
    """The token that follows in ``whole``, prompt and output of the teacher; past its end, any."""
    return lambda _, item: Drafted(whole[item.position + 1] if item.position + 1 < len(whole) else 0, None)


def wrong_draft(whole: list[int], vocab_size: int) -> ExitDraft:
    """Never the token that follows."""
    return lambda _, item: Drafted((dict(enumerate(whole)).get(item.position + 1, 0) + 1) % vocab_size, None)
