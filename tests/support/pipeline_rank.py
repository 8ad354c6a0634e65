"""One of three stages of a tiny teacher over a real process group, decoding one prompt. Started once per rank.

Arguments: the rank, the group's store, and a file of JSON: the teacher's folder, the prompt, what follows it, rows of a
prompt per message, whether rows travel apart from their header, and where the first rank writes what came out. Drafts
are right but at every third position.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd import conductor as conducting
from specscope.engine.ppsd.carrier import Carrier
from specscope.engine.ppsd.conductor import Conductor, ConductorLinks, PipelineRequest
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.hop import Inbox, Sender
from specscope.engine.ppsd.message import Shape
from specscope.engine.ppsd.outcome import Drafted
from specscope.engine.ppsd.pace import Pace
from specscope.engine.ppsd.rank import NEWS_SHAPE, message_shapes
from specscope.engine.ppsd.schedule import Item
from specscope.engine.ppsd.stage import Stage
from specscope.engine.ppsd.verifier import Verifier
from specscope.engine.ppsd.worker import Links, Worker
from specscope.engine.settings import GREEDY
from support.local_pipeline import load_stages
from support.tiny_models import VOCAB

NUM_STAGES = 3


@dataclass(frozen=True)
class Task:
    """What the ranks do."""

    teacher: str
    prompt: list[int]
    following: list[int]
    chunk: int
    apart: bool
    output: str


def lead(stage: Stage, task: Task, onward: Shape, back: Shape) -> None:
    """The first rank."""
    text = [*task.prompt, *task.following]

    def draft(hidden: torch.Tensor, item: Item) -> Drafted:
        position = item.position + 1
        token = text[position] if position < len(text) else 0
        return Drafted((token + (position % 3 == 0)) % VOCAB, None)

    conductor = Conductor(
        stage,
        ConductorLinks(
            inbox=Inbox({NUM_STAGES - 1: back}, torch.float32),
            following=Sender(1, onward, torch.float32),
            news=[Sender(2, NEWS_SHAPE, torch.float32)],
        ),
        EventLog(0, recording=False),
        pace=Pace(NUM_STAGES, adapts=False),
        exit_draft=draft,
        decode_text=str,
        idle=lambda: None,
        patience_s=20.0,
    )
    turn = conductor.decode(PipelineRequest(task.prompt, StopRules(len(task.following), [], [])), lambda _: None)
    conductor.stop()
    Path(task.output).write_text(json.dumps([turn.output_ids, turn.num_dropped]))


def follow(stage: Stage, rank: int, onward: Shape, back: Shape) -> None:
    """A later rank."""
    last = rank == NUM_STAGES - 1
    sources = {rank - 1: onward} | ({0: NEWS_SHAPE} if rank > 1 else {})
    sender = Sender(0, back, torch.float32) if last else Sender(rank + 1, onward, torch.float32)
    verify = Verifier(GREEDY, recording=False) if last else None
    links = Links(Inbox(sources, torch.float32), sender)
    Worker(stage, links, EventLog(rank, recording=False), verify=verify, idle=lambda: None).serve()


def main() -> None:
    rank, store, task = int(sys.argv[1]), sys.argv[2], Task(**json.loads(Path(sys.argv[3]).read_text()))
    conducting.PREFILL_CHUNK = task.chunk
    stage = load_stages(Path(task.teacher), 4, NUM_STAGES)[rank]
    onward, back = message_shapes(
        stage, Carrier("nccl" if task.apart else "gloo"), num_stages=NUM_STAGES, recording=False
    )
    group = dist.FileStore(store, NUM_STAGES)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=group, rank=rank, world_size=NUM_STAGES)
    if rank == 0:
        lead(stage, task, onward, back)
    else:
        follow(stage, rank, onward, back)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
