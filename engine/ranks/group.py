"""The process group of a run's ranks, and what it carries tensors by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from specscope.engine.ranks.lifeline import GROUP_FILE, Lifeline
from specscope.tracer.errors import UsageError

#: What carries tensors between devices of torch's type. Between all others they go through the host's memory.
CARRIERS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
HOST_CARRIER = "gloo"
HOST_KIND = "cpu"
FOREVER = timedelta(days=30)  # the group's own patience: who waits, and how long, is decided elsewhere


def carrier_of(device_type: str) -> str:
    """What carries tensors between devices of that type."""
    return CARRIERS.get(device_type, HOST_CARRIER)


def group_backend(carrier: str, device_type: str) -> str:
    """What ``init_process_group`` is given so that ``carrier`` has the tensors of that type of device, and gloo those
    of the host."""
    return HOST_CARRIER if carrier == HOST_CARRIER else f"{HOST_KIND}:{HOST_CARRIER},{device_type}:{carrier}"


@contextmanager
def joined_group(lifeline: Lifeline, num_ranks: int, option: str, backend: str) -> Iterator[None]:
    """Inside, this rank is one of a group of ``num_ranks``, as the user asked for by ``option``.

    Raises:
        UsageError: where the launcher started another number of ranks.
    """
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size != num_ranks:
        raise UsageError(f"got {option} {num_ranks} and {world_size} ranks, wanted as many of one as of the other")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = None
    if lifeline.folder is not None:
        store = dist.FileStore(str(lifeline.folder / GROUP_FILE), world_size)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=lifeline.rank, world_size=world_size, timeout=FOREVER)
    yield
    dist.destroy_process_group()
