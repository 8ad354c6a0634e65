"""One rank from its start to its end: what it loads, how it is connected, and what it serves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from specscope.engine.backends.attention import registered_name
from specscope.engine.backends.choice import checked, kernel_of
from specscope.engine.drafters.early_exit.drafter import check_fits
from specscope.engine.drafters.early_exit.head import ExitHeadFiles, load_exit_head
from specscope.engine.drafters.names import UNTRAINED, parse_drafter
from specscope.engine.load.models import DEMO_MODELS, DTYPES
from specscope.engine.ppsd.carrier import usable_carrier
from specscope.engine.ppsd.choice import PipelineChoice, check_exit_layer, head_folder
from specscope.engine.ppsd.conductor import PREFILL_CHUNK, ConductorLinks, ExitDraft
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.hop import ClockOffset, Inbox, Sender, answer_pings, measure_offset
from specscope.engine.ppsd.lifeline import GROUP_FILE, Lifeline
from specscope.engine.ppsd.message import Shape
from specscope.engine.ppsd.outcome import Drafted
from specscope.engine.ppsd.schedule import Item
from specscope.engine.ppsd.split import split_layers
from specscope.engine.ppsd.stage import Stage
from specscope.engine.ppsd.verifier import EXTRA_BYTES, Verifier
from specscope.engine.ppsd.worker import Links, Worker
from specscope.engine.settings import ModelChoice, Settings
from specscope.engine.teacher.files import TeacherOptions, find_teacher
from specscope.engine.teacher.model import Teacher, check_transformers_version
from specscope.engine.teacher.partial import TeacherPart, check_part_loads, load_part
from specscope.tracer.errors import UsageError

EVENTS_PER_STAGE = 16  # in a message: what is left waits for the next one
FOREVER = timedelta(days=30)  # the carrier's own patience: who waits, and how long, is decided elsewhere
NEWS_SHAPE = Shape(max_rows=0, row_bytes=0, max_events=0, extra_bytes=0)


class StageFacts(NamedTuple):
    """What the first rank knows of a stage."""

    layers: range
    num_bytes: int  # of its weights
    clock: ClockOffset


class Loaded(NamedTuple):
    """A rank's share of the models."""

    stage: Stage
    head: ExitHeadFiles | None  # of the first rank, where one was trained
    exit_draft: ExitDraft | None  # of the first rank, unless it decodes sequentially
    splits: list[range]


def load_rank(settings: Settings, choice: PipelineChoice, rank: int, *, recording: bool) -> Loaded:
    """Loads the layers of ``rank`` and what goes with them.

    Raises:
        UsageError: where something is missing, does not fit, or cannot be split so.
    """
    check_transformers_version()
    model = settings.choice
    name = str(DEMO_MODELS / "teacher") if model.teacher == "demo" else model.teacher
    kernel = kernel_of(model.attention, torch.device("cpu"))
    options = TeacherOptions(
        dtype=DTYPES[model.dtype],
        device=torch.device("cpu"),
        attention="eager" if kernel is None else kernel.name,
        allow_remote_code=model.allow_remote_code,
        allow_download=model.allow_download,
        allow_nonfinite=model.allow_nonfinite,
    )
    _, config = find_teacher(name, options)
    check_part_loads(config, name)
    files = _head_files(model, choice)
    num_layers = int(config.num_hidden_layers)
    splits = split_layers(num_layers, _exit_layer(choice, files, num_layers), choice.num_stages)
    first, last = rank == 0, rank == choice.num_stages - 1
    drafts = model.mode != "baseline"
    untrained = drafts and files is None
    part = TeacherPart(
        layers=splits[rank],
        embedding=first,
        norm=last or (first and untrained),
        output=last or (first and drafts),
    )
    teacher = Teacher(*load_part(name, options, part))
    teacher.attention = checked(model.attention, kernel, teacher.model, check=model.self_check)
    teacher.attend_by(registered_name(teacher.attention.runs))
    if files is not None and first:
        check_fits(files, teacher)
    draft = _exit_draft(teacher, files, recording=recording) if first and drafts else None
    return Loaded(Stage(teacher, splits[rank]), files, draft, splits)


def _head_files(model: ModelChoice, choice: PipelineChoice) -> ExitHeadFiles | None:
    if model.mode == "baseline":
        return None
    path = parse_drafter(model.drafter, model.teacher).path
    if path == UNTRAINED:
        return None
    return load_exit_head(head_folder(path, choice.exit_layer), allow_nonfinite=model.allow_nonfinite)


def _exit_layer(choice: PipelineChoice, files: ExitHeadFiles | None, num_layers: int) -> int:
    """After how many layers the first stage ends."""
    if files is None:
        # Without a draft any cut will do: an even one.
        return choice.exit_layer if choice.exit_layer is not None else num_layers // choice.num_stages
    trained = files.head.config.exit_layer
    check_exit_layer(choice, trained, files.folder)
    return trained


def _exit_draft(teacher: Teacher, files: ExitHeadFiles | None, *, recording: bool) -> ExitDraft:
    """The best token of the exit head; where it is untrained, of the teacher's own norm and output matrix."""
    head = files.head.to(device=teacher.device, dtype=teacher.dtype) if files is not None else None

    def draft(hidden: torch.Tensor, _: Item) -> Drafted:
        row = hidden[:, -1:]
        logits = (teacher.head(row) if head is None else teacher.output_head(head(row)))[0, 0]
        best, prob = int(logits.argmax()), None
        if recording:
            prob = float(logits.float().softmax(dim=0)[best])
        return Drafted(best, prob)

    return draft


@contextmanager
def joined(lifeline: Lifeline, num_stages: int, device_type: str) -> Iterator[None]:
    """Inside, this rank is one of a group of all stages, which are on devices of torch's ``device_type``.

    Raises:
        UsageError: where the launcher started another number of ranks, or torch lacks what carries their messages.
    """
    carrier = usable_carrier(device_type)
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size != num_stages:
        raise UsageError(f"got --stages {num_stages} and {world_size} ranks, wanted one rank per stage")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = None
    if lifeline.folder is not None:
        store = dist.FileStore(str(lifeline.folder / GROUP_FILE), world_size)  # type: ignore[attr-defined]
    dist.init_process_group(carrier, store=store, rank=lifeline.rank, world_size=world_size, timeout=FOREVER)
    yield
    dist.destroy_process_group()


def exchange_facts(stage: Stage, rank: int, num_stages: int) -> list[StageFacts]:
    """Every stage's facts; the clocks are measured by the first rank, and only it gets them."""
    ours = torch.tensor([stage.layers.start, stage.layers.stop, stage.num_bytes], dtype=torch.int64)
    all_of_them = [torch.zeros_like(ours) for _ in range(num_stages)]
    dist.all_gather(all_of_them, ours)
    clocks = [ClockOffset(0, 0, 0)] * num_stages
    if rank == 0:
        clocks[1:] = [measure_offset(other) for other in range(1, num_stages)]
    else:
        answer_pings()
    dist.barrier()
    return [
        StageFacts(range(start, stop), num_bytes, clock)
        for (start, stop, num_bytes), clock in zip((facts.tolist() for facts in all_of_them), clocks, strict=True)
    ]


def message_shape(stage: Stage, num_stages: int, *, recording: bool) -> Shape:
    """Of what goes from stage to stage."""
    size = torch.empty((), dtype=stage.part.dtype).element_size()
    return Shape(
        max_rows=PREFILL_CHUNK,
        row_bytes=stage.part.hidden_size * size,
        max_events=EVENTS_PER_STAGE * num_stages if recording else 0,
        extra_bytes=EXTRA_BYTES if recording else 0,
    )


def serve(
    stage: Stage,
    settings: Settings,
    lifeline: Lifeline,
    *,
    num_stages: int,
    recording: bool,
    spoil: Callable[[Worker], None],
) -> None:
    """Serves as one of the stages after the first, until the run is over. ``spoil`` may put a fault in."""
    rank, dtype = lifeline.rank, stage.part.dtype
    shape = message_shape(stage, num_stages, recording=recording)
    sources = {rank - 1: shape} | ({0: NEWS_SHAPE} if rank > 1 else {})
    last = rank == num_stages - 1
    links = Links(Inbox(sources, dtype), Sender(0 if last else rank + 1, shape, dtype))
    verify = Verifier(settings.choice.rule, recording=recording) if last else None
    lifeline.turn_to("waiting")
    worker = Worker(stage, links, EventLog(rank, recording=recording), verify=verify, idle=lifeline.looked)
    spoil(worker)
    worker.serve()


def conductor_links(stage: Stage, num_stages: int, *, recording: bool) -> ConductorLinks:
    """How the first rank is connected."""
    shape, dtype = message_shape(stage, num_stages, recording=recording), stage.part.dtype
    return ConductorLinks(
        inbox=Inbox({num_stages - 1: shape}, dtype),
        following=Sender(1, shape, dtype),
        news=[Sender(rank, NEWS_SHAPE, dtype) for rank in range(2, num_stages)],
    )
