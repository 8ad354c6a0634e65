"""One rank from its start to its end: what it loads, how it is connected, and what it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist

from specscope.engine.backends.attention import registered_name
from specscope.engine.backends.choice import checked, kernel_of
from specscope.engine.drafters.early_exit.drafter import check_fits
from specscope.engine.drafters.early_exit.head import ExitHeadFiles, load_exit_head
from specscope.engine.drafters.names import UNTRAINED, parse_drafter
from specscope.engine.load.models import DEMO_MODELS, DTYPES
from specscope.engine.ppsd.carrier import Carrier, choose_carrier
from specscope.engine.ppsd.choice import PipelineChoice, check_exit_layer, head_folder
from specscope.engine.ppsd.conductor import PREFILL_CHUNK, ConductorLinks, ExitDraft
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.hop import ClockOffset, Inbox, Sender, answer_pings, measure_offset
from specscope.engine.ppsd.message import Shape
from specscope.engine.ppsd.outcome import Drafted
from specscope.engine.ppsd.placement import Landing, StageDevice, place_stages
from specscope.engine.ppsd.schedule import Item
from specscope.engine.ppsd.split import split_layers
from specscope.engine.ppsd.stage import Stage
from specscope.engine.ppsd.verifier import EXTRA_BYTES, Verifier
from specscope.engine.ppsd.worker import Links, Worker
from specscope.engine.ranks.group import joined_group
from specscope.engine.ranks.lifeline import Lifeline
from specscope.engine.settings import ModelChoice, Settings
from specscope.engine.teacher.files import TeacherOptions, find_teacher
from specscope.engine.teacher.model import Teacher, check_transformers_version
from specscope.engine.teacher.partial import TeacherPart, check_part_loads, load_part

EVENTS_PER_STAGE = 16  # in a message: what is left waits for the next one
NEWS_SHAPE = Shape(max_rows=0, row_bytes=0, max_events=0, extra_bytes=0)


class StageFacts(NamedTuple):
    """What the first rank knows of a stage."""

    layers: range
    num_bytes: int  # of its weights
    clock: ClockOffset
    device: str  # as --device could name it


class Means(NamedTuple):
    """What the stages are on, and what carries hidden states between them. Each rank comes to the same."""

    places: list[StageDevice]  # a stage each
    carrier: Carrier


class Loaded(NamedTuple):
    """A rank's share of the models."""

    stage: Stage
    head: ExitHeadFiles | None  # of the first rank, where one was trained
    exit_draft: ExitDraft | None  # of the first rank, unless it decodes sequentially
    splits: list[range]
    means: Means


def find_means(settings: Settings, choice: PipelineChoice) -> Means:
    """The device of each stage, and the carrier.

    Raises:
        UsageError: where there is no such device, or the carrier cannot be had.
    """
    places = place_stages(settings.choice.device, choice.num_stages)
    return Means(places, choose_carrier(choice.carrier, [place.name for place in places]))


def load_rank(settings: Settings, choice: PipelineChoice, rank: int, *, recording: bool) -> Loaded:
    """Loads the layers of ``rank`` and what goes with them.

    Raises:
        UsageError: where something is missing, does not fit, or cannot be split so.
    """
    check_transformers_version()
    model = settings.choice
    name = str(DEMO_MODELS / "teacher") if model.teacher == "demo" else model.teacher
    means = find_means(settings, choice)
    place = means.places[rank]
    place.make_current()
    kernel = kernel_of(model.attention, place.device)
    options = TeacherOptions(
        dtype=DTYPES[model.dtype],
        device=place.device,
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
    return Loaded(_stage(teacher, splits[rank], place, means.carrier), files, draft, splits, means)


def _stage(teacher: Teacher, layers: range, place: StageDevice, carrier: Carrier) -> Stage:
    """The stage that computes at ``place``; rows reach it as ``carrier`` brings them."""
    if carrier.is_direct:
        return Stage(teacher, layers, finish=place.finish_stream)
    if not carrier.is_staged:
        return Stage(teacher, layers)
    landing = Landing(PREFILL_CHUNK, teacher.hidden_size, teacher.dtype, place.device)
    return Stage(teacher, layers, bring=landing.bring, finish=place.finish)


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
def joined(lifeline: Lifeline, num_stages: int, means: Means) -> Iterator[None]:
    """Inside, this rank is one of a group of all stages.

    Raises:
        UsageError: where the launcher started another number of ranks.
    """
    backend = means.carrier.group_backend(means.places[lifeline.rank].device.type)
    with joined_group(lifeline, num_stages, "--stages", backend):
        yield


def exchange_facts(stage: Stage, rank: int, means: Means) -> list[StageFacts]:
    """Every stage's facts; the clocks are measured by the first rank, and only it gets them."""
    num_stages = len(means.places)
    ours = torch.tensor([stage.layers.start, stage.layers.stop, stage.num_bytes], dtype=torch.int64)
    all_of_them = [torch.zeros_like(ours) for _ in range(num_stages)]
    dist.all_gather(all_of_them, ours)
    clocks = [ClockOffset(0, 0, 0)] * num_stages
    if rank == 0:
        clocks[1:] = [measure_offset(other) for other in range(1, num_stages)]
    else:
        answer_pings()
    dist.all_reduce(torch.zeros(1))  # a barrier, and of the host: that of torch would be the devices'
    facts = zip((facts.tolist() for facts in all_of_them), clocks, means.places, strict=True)
    return [
        StageFacts(range(start, stop), num_bytes, clock, place.name) for (start, stop, num_bytes), clock, place in facts
    ]


class MessageShapes(NamedTuple):
    """What the messages between two stages have room for."""

    onward: Shape  # from each stage to the next
    back: Shape  # from the last to the first: no rows


def message_shapes(stage: Stage, carrier: Carrier, *, num_stages: int, recording: bool) -> MessageShapes:
    """Where ``carrier`` is direct, rows lie on the stage's device and travel apart."""
    size = torch.empty((), dtype=stage.part.dtype).element_size()
    back = Shape(
        max_rows=0,
        row_bytes=stage.part.hidden_size * size,
        max_events=EVENTS_PER_STAGE * num_stages if recording else 0,
        extra_bytes=EXTRA_BYTES if recording else 0,
    )
    rows_on = stage.part.device if carrier.is_direct else None
    return MessageShapes(back._replace(max_rows=PREFILL_CHUNK, rows_on=rows_on), back)


def serve(
    loaded: Loaded,
    settings: Settings,
    lifeline: Lifeline,
    *,
    num_stages: int,
    recording: bool,
    spoil: Callable[[Worker], None],
) -> None:
    """Serves as one of the stages after the first, until the run is over. ``spoil`` may put a fault in."""
    rank, stage = lifeline.rank, loaded.stage
    dtype = stage.part.dtype
    onward, back = message_shapes(stage, loaded.means.carrier, num_stages=num_stages, recording=recording)
    sources = {rank - 1: onward} | ({0: NEWS_SHAPE} if rank > 1 else {})
    last = rank == num_stages - 1
    links = Links(Inbox(sources, dtype), Sender(0, back, dtype) if last else Sender(rank + 1, onward, dtype))
    verify = Verifier(settings.choice.rule, recording=recording) if last else None
    lifeline.turn_to("waiting")
    worker = Worker(stage, links, EventLog(rank, recording=recording), verify=verify, idle=lifeline.looked)
    spoil(worker)
    worker.serve()


def conductor_links(loaded: Loaded, num_stages: int, *, recording: bool) -> ConductorLinks:
    """How the first rank is connected."""
    stage, dtype = loaded.stage, loaded.stage.part.dtype
    onward, back = message_shapes(stage, loaded.means.carrier, num_stages=num_stages, recording=recording)
    return ConductorLinks(
        inbox=Inbox({num_stages - 1: back}, dtype),
        following=Sender(1, onward, dtype),
        news=[Sender(rank, NEWS_SHAPE, dtype) for rank in range(2, num_stages)],
    )
