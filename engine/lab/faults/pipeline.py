"""Deliberate faults of the pipeline: bugs that stages, hops and epochs invite. Absent from honest runs.

Each spoils the parts of one rank after they were built. ``specscope run --engine ppsd --inject P02`` puts one in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal

import torch

from specscope.engine.ppsd.conductor import Conductor
from specscope.engine.ppsd.message import Message
from specscope.engine.ppsd.schedule import Admission, Gate, Item, PipelineSchedule, Verdict
from specscope.engine.ppsd.stage import Stage
from specscope.engine.ppsd.worker import Worker
from specscope.engine.tree.tensors import causal_mask
from specscope.tracer.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RankParts:
    """What a fault may spoil of one rank."""

    rank: int
    num_stages: int
    serves: Worker | Conductor

    @property
    def stage(self) -> Stage:
        """The rank's layers."""
        return self.serves.stage

    @property
    def is_last(self) -> bool:
        """Whether it says what follows."""
        return self.rank == self.num_stages - 1


@dataclass(frozen=True, kw_only=True)
class PipelineFault:
    """One kind of bug.

    Args:
        shows: what finds it: an invariant of the oracle, the comparison with sequential decoding, or only that with
            another pipeline, since it changes nothing but how often drafts hold.
    """

    id: str
    says: str
    spoil: Callable[[RankParts], None]
    shows: Literal["oracle", "diff", "pipelines"]
    invariant: str | None = None
    drawn: bool = False  # it shows only where tokens are drawn


class _LaxGate(Gate):
    """Runs items of older epochs too."""

    def admit(self, item: Item, num_rows: int = 1) -> Admission:
        if item.epoch < self.epoch:
            return Admission("stale epoch")
        cut = item.position if item.position < self.length else None
        self.epoch, self.length = item.epoch, item.position + num_rows
        return Admission(None, cut)


class _LaxSchedule(PipelineSchedule):
    """Takes whatever token comes out for the position that it waits for."""

    def verified(self, position: int, epoch: int, token: int) -> Verdict | None:
        waited_for = self.oldest
        if waited_for is None or waited_for.position != position:
            return None
        verdict = super().verified(position, waited_for.epoch, token)
        return None if verdict is None else verdict._replace(epoch=epoch)


def _use_stale_items(parts: RankParts) -> None:
    parts.serves.gate = _LaxGate()
    if isinstance(parts.serves, Conductor):
        parts.serves.schedule = _LaxSchedule(parts.serves.schedule.window)


def _miss_cuts(parts: RankParts) -> None:
    if parts.rank == 0:
        _replace(parts.stage, "cut", lambda stage, length: None)


def _cut_one_short(parts: RankParts) -> None:
    def cut(stage: Stage, length: int) -> None:
        stage.cache.truncate(0, min(length + 1, stage.length))

    if parts.rank == 0:
        _replace(parts.stage, "cut", cut)


def _send_the_buffer_before(parts: RankParts) -> None:
    """Every third token's rows are overwritten by those before them."""
    if parts.rank or not isinstance(parts.serves, Conductor):
        return
    sender = parts.serves.following
    send, kept, count = sender.send, torch.empty(0), 0

    def late(message: Message) -> None:
        nonlocal kept, count
        if message.num_rows == 1:
            count += 1
            rows = message.rows()
            now = rows.clone()
            if count % 3 == 0:
                rows.copy_(kept)
            kept = now
        send(message)

    sender.send = late  # type: ignore[method-assign]


def _rotate_too_far_after_a_cut(parts: RankParts) -> None:
    stage, cut = parts.stage, parts.stage.cut
    is_off = False

    def noted_cut(length: int) -> None:
        nonlocal is_off
        is_off = True
        cut(length)

    def run(stage: Stage, hidden: torch.Tensor) -> torch.Tensor:
        nonlocal is_off
        start, count = stage.length, hidden.shape[1]
        positions = torch.arange(start + is_off, start + is_off + count)[None]
        is_off = False
        mask = causal_mask(count, start, hidden.dtype, hidden.device)
        hidden = stage.part.run_layers(hidden, positions, mask, stage.cache, layers=range(len(stage.layers)))
        stage.cache.commit_length([count])
        return hidden

    if parts.rank == 0:
        stage.cut = noted_cut  # type: ignore[method-assign]
        _replace(stage, "run", run)


def _share_a_cache_layer(parts: RankParts) -> None:
    """Two layers of a stage write to the same keys and values: the later one reads what the earlier one wrote."""
    cache = parts.stage.cache
    append = cache.append

    def shared(layer: int, tail: int, keys: torch.Tensor, values: torch.Tensor) -> Any:
        return append(0 if layer == 1 else layer, tail, keys, values)

    if parts.rank == parts.num_stages - 1:
        cache.append = shared  # type: ignore[method-assign]


def _draw_by_itself(parts: RankParts) -> None:
    if not parts.is_last or not isinstance(parts.serves, Worker) or parts.serves.verify is None:
        return
    verify, generator = parts.serves.verify, torch.Generator().manual_seed(7)

    def own_coin(logits: torch.Tensor, message: Message, result: Message) -> int:
        message.coin = float(torch.rand((), dtype=torch.float64, generator=generator))
        return verify(logits, message, result)

    parts.serves.verify = own_coin


def _read_the_layer_before(parts: RankParts) -> None:
    """The exit head reads what went into the first stage's last layer, not what came out of it."""
    serves = parts.serves
    if not isinstance(serves, Conductor) or serves.exit_draft is None:
        return
    draft, kept = serves.exit_draft, torch.empty(0)

    def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal kept
        kept = inputs[0]

    parts.stage.part.model.model.layers[len(parts.stage.layers) - 1].register_forward_pre_hook(keep)
    serves.exit_draft = lambda _, item: draft(kept, item)


def _replace(stage: Stage, name: str, function: Callable[..., Any]) -> None:
    setattr(stage, name, MethodType(function, stage))


#: By id.
PIPELINE_FAULTS = {
    fault.id: fault
    for fault in (
        PipelineFault(
            id="P01",
            says="an item of an older epoch is used",
            spoil=_use_stale_items,
            shows="oracle",
            invariant="pipeline.epoch",
        ),
        PipelineFault(
            id="P02",
            says="one stage does not cut its keys and values",
            spoil=_miss_cuts,
            shows="oracle",
            invariant="pipeline.cuts",
        ),
        PipelineFault(
            id="P03",
            says="one stage keeps a position too many",
            spoil=_cut_one_short,
            shows="oracle",
            invariant="pipeline.cuts",
        ),
        PipelineFault(id="P04", says="a hop delivers the buffer before", spoil=_send_the_buffer_before, shows="diff"),
        PipelineFault(
            id="P05",
            says="positions are off by one after a refuted draft",
            spoil=_rotate_too_far_after_a_cut,
            shows="diff",
        ),
        PipelineFault(id="P06", says="two layers share a cache layer", spoil=_share_a_cache_layer, shows="diff"),
        PipelineFault(
            id="P07",
            says="the last stage draws with its own generator",
            spoil=_draw_by_itself,
            shows="oracle",
            invariant="accept.bonus",
            drawn=True,
        ),
        PipelineFault(
            id="P08",
            says="the exit head reads another layer's output",
            spoil=_read_the_layer_before,
            shows="pipelines",
        ),
    )
}


def find_pipeline_fault(name: str) -> PipelineFault:
    """The fault of that id.

    Raises:
        UsageError: where there is none.
    """
    if name not in PIPELINE_FAULTS:
        known = ", ".join(f"{fault.id} ({fault.says})" for fault in PIPELINE_FAULTS.values())
        raise UsageError(f"got fault {name!r}, wanted one of those of the pipeline: {known}")
    return PIPELINE_FAULTS[name]
