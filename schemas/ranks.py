"""What a run of several ranks records besides its steps: how the teacher is divided, and what each rank decided.

Every rank computes every step, and only one of them writes the trace: what the others decided is there as digests.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specscope.schemas.base import Digest, Section


class TensorParallel(Section):
    """How the teacher's weights are divided among ranks that compute each layer together."""

    world_size: int = Field(ge=1, description="Number of ranks.")
    plan: dict[str, str] = Field(
        description="How each divided module is cut, by its name with * for a layer's number: transformers' tp_plan."
    )
    backend: str = Field(description="What carries partial sums between ranks: gloo, nccl or hccl.")
    acceptance: Literal["replicated", "sharded"] = Field(
        description="replicated: every rank accepts for all rows; sharded: each for its share of them, and the outcomes"
        " are gathered."
    )


class RankDecisions(Section):
    """What one rank decided in a step of one row: xxh3_64, in hexadecimal, over little-endian int64."""

    tree_digest: Digest = Field(description="Of the tree's tokens in slot order, then of their parents.")
    path_digest: Digest | None = Field(
        default=None, description="Of the accepted slots; absent where the step did not get so far."
    )
    emitted_digest: Digest | None = Field(
        default=None, description="Of the accepted tokens and the bonus token, before a stop rule cuts them."
    )
