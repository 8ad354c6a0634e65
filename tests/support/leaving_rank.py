"""One of three stages that end together; the last one hears the first one's news late. Started once per rank."""

from __future__ import annotations

import sys
import time
from typing import Any, cast

import torch
import torch.distributed as dist

from specscope.engine.ppsd.conductor import Conductor, ConductorLinks
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.hop import NUM_BUFFERS, Inbox, Sender
from specscope.engine.ppsd.message import Kind, Shape
from specscope.engine.ppsd.pace import Pace
from specscope.engine.ppsd.stage import Stage
from specscope.engine.ppsd.worker import Links, Worker

LATE_S = 1.0
SHAPE = Shape(max_rows=1, row_bytes=4, max_events=0, extra_bytes=0)
NO_STAGE = cast("Stage", None)  # nothing is run


def late(receive: Any) -> Any:
    """``receive``, but what the first rank sends waits."""

    def receive_late(buffer: torch.Tensor, source: int, tag: int) -> Any:
        if source == 0:
            time.sleep(LATE_S)
        return receive(buffer, source, tag=tag)

    return receive_late


def sender(target: int) -> Sender:
    return Sender(target, SHAPE, torch.float32)


def inbox(*sources: int) -> Inbox:
    return Inbox(dict.fromkeys(sources, SHAPE), torch.float32)


def lead() -> None:
    """The first rank: more news than there are buffers, then the end."""
    news = sender(2)
    links = ConductorLinks(inbox=inbox(2), following=sender(1), news=[news])
    conductor = Conductor(
        NO_STAGE,
        links,
        EventLog(0, recording=False),
        pace=Pace(1, adapts=False),
        exit_draft=None,
        decode_text=str,
        idle=lambda: None,
        patience_s=30.0,
    )
    for _ in range(NUM_BUFFERS + 1):
        news.send(news.free().begin(Kind.EPOCH))
    conductor.stop()


def follow(rank: int) -> None:
    """A later rank."""
    links = Links(inbox(0) if rank == 1 else inbox(1, 0), sender((rank + 1) % 3))
    Worker(NO_STAGE, links, EventLog(rank, recording=False), verify=None, idle=lambda: None).serve()


def main() -> None:
    rank, store = int(sys.argv[1]), sys.argv[2]
    if rank == 2:
        dist.irecv = late(dist.irecv)
    dist.init_process_group("gloo", store=dist.FileStore(store, 3), rank=rank, world_size=3)  # type: ignore[attr-defined]
    if rank == 0:
        lead()
    else:
        follow(rank)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
