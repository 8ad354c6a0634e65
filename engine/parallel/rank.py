"""One rank of several: the group that it is in while it decodes, and what it does otherwise than a process alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from specscope.engine.backends.devices import resolve_device
from specscope.engine.parallel.acceptance import sharded
from specscope.engine.parallel.group import RankGroup
from specscope.engine.ranks.group import carrier_of, group_backend, joined_group
from specscope.engine.ranks.leaving import RankLostError
from specscope.engine.ranks.lifeline import Lifeline
from specscope.engine.run.runner import Workings
from specscope.engine.settings import Settings
from specscope.tracer.errors import EngineError

OPTION = "--tensor-parallel"
#: What the carriers say where another rank is gone, in any of their exceptions: gloo, then nccl. What else they say is
#: of this rank itself.
LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out"),
    *("remote process exited", "communicator was aborted"),
)


@contextmanager
def joined(lifeline: Lifeline, settings: Settings) -> Iterator[RankGroup]:
    """Inside, this rank is one of those that the settings ask for.

    Raises:
        UsageError: where the launcher started another number of ranks.
        RankLostError: where decoding failed because another rank is gone.
    """
    device_type = resolve_device(settings.choice.device).type
    backend = group_backend(carrier_of(device_type), device_type)
    with joined_group(lifeline, settings.choice.num_ranks, OPTION, backend):
        try:
            yield RankGroup.of()
        except (EngineError, RuntimeError) as error:
            if any(words in str(error) for words in LOST):
                raise RankLostError("another rank ended") from error
            raise


def together(settings: Settings, group: RankGroup) -> Callable[[Workings], Workings]:
    """What decodes, as a rank of ``group``: it says what it decides, and accepts as the settings say."""

    def change(workings: Workings) -> Workings:
        phases = replace(workings.phases, exchange=group.exchange)
        if settings.acceptance == "sharded":
            phases = replace(phases, accept=sharded(phases.accept, group))
        return replace(workings, phases=phases)

    return change
