"""What a pipelined run records besides its steps: who held which layers, and what was drafted and verified when.

In such a run a step is one verified token: its tree is the root alone, and the draft is in its pipeline section.
Times are in nanoseconds since the run began, on the first stage's clock.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specscope.schemas.base import Float, Section, TokenId

IntervalKind = Literal["prefill", "verify", "draft", "hop"]
DropReason = Literal["stale epoch", "refuted", "turn over"]


class PipelineStage(Section):
    """One process of the pipeline."""

    first_layer: int = Field(description="Of the teacher's layers that it holds.")
    last_layer: int = Field(description="The last of them.")
    weight_bytes: int | None = Field(default=None, description="Of the weights that it holds.")
    clock_offset_ns: int | None = Field(
        default=None, description="Its clock less the first stage's, as measured at the start."
    )
    clock_uncertainty_ns: int | None = Field(default=None, description="How far that may be off.")
    hop_ns: int | None = Field(default=None, description="The fastest message to it, one way, at the start.")
    device: str | None = Field(default=None, description="Where it computes, such as cpu or cuda:1.")


class Pipeline(Section):
    """How the teacher was split into stages."""

    exit_layer: int = Field(description="Layers before the exit head: those of the first stage.")
    window: int = Field(description="Tokens in flight at most.")
    backend: str = Field(description="What carries hidden states: gloo, nccl or hccl.")
    staged: bool | None = Field(
        default=None,
        description="Whether they go through the host's memory on their way from device to device; absent where that "
        "was not said.",
    )
    stages: list[PipelineStage] = Field(description="In the order in which a token passes them.")


class StageInterval(Section):
    """A stage's work on an item, or an item's way to a stage."""

    stage: int = Field(description="Number of the stage; of a hop, the one that receives.")
    activity: IntervalKind = Field(description="prefill and verify: its layers; draft: the exit head; hop: on the way.")
    position: int = Field(description="Of the item's first token.")
    epoch: int = Field(description="Of the item.")
    start_ns: int = Field(description="When it began.")
    end_ns: int = Field(description="When it ended.")


class StageCut(Section):
    """A stage's keys and values, cut back before an item."""

    stage: int = Field(description="Number of the stage.")
    epoch: int = Field(description="Of the item that was run next.")
    length_before: int = Field(description="Positions kept before the cut.")
    length_after: int = Field(description="Positions kept after it.")


class StageDrop(Section):
    """An item that a stage dropped unread."""

    stage: int = Field(description="Number of the stage.")
    position: int = Field(description="Of the item.")
    epoch: int = Field(description="Of the item.")
    reason: DropReason = Field(description="Why it was of no use.")


class StageEvents(Section):
    """What became known of the stages since the record before; the stages' own order is by time."""

    intervals: list[StageInterval] = Field(description="What the stages did, and when.")
    cuts: list[StageCut] = Field(description="Keys and values that were cut back.")
    drops: list[StageDrop] = Field(description="Items that were dropped.")


class PipelineSection(StageEvents):
    """One verified token."""

    position: int = Field(description="Of the item that was run; the token follows it.")
    epoch: int = Field(description="In which it was run.")
    draft_token: TokenId | None = Field(
        default=None, description="What the exit head drafted; absent where nothing was."
    )
    draft_prob: Float | None = Field(default=None, description="Its probability, as the exit head says.")
    accepted: bool | None = Field(
        default=None, description="Whether the draft is the verified token; absent without a draft."
    )
    in_flight: list[int] | None = Field(
        default=None,
        description="Positions of the items after it that a refuted draft made stale; absent where it held.",
    )
