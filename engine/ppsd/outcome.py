"""What a pipelined turn comes to: its drafts, its verified tokens, its sums, and who hears of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from specscope.engine.loop.phases import EndReason
from specscope.engine.loop.stopping import StopDecision
from specscope.engine.ppsd.message import Event, Message
from specscope.engine.ppsd.schedule import Verdict


class Drafted(NamedTuple):
    """What the exit head says."""

    token: int
    prob: float | None  # None where nobody reads it


@dataclass(kw_only=True)
class PipelineTurn:
    """What a turn came to; filled while it runs."""

    output_ids: list[int] = field(default_factory=list)
    reason: EndReason = "failed"
    num_drafted: int = 0  # drafts that were verified
    num_accepted: int = 0
    num_dropped: int = 0  # items that were run by the first stage and counted for nothing
    prefill_ns: int = 0
    duration_ns: int = 0

    @property
    def acceptance(self) -> float | None:
        """Share of the verified drafts that were right; None where nothing was drafted."""
        return self.num_accepted / self.num_drafted if self.num_drafted else None

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the turn's wall time, prefill included."""
        return len(self.output_ids) / max(self.duration_ns / 1e9, 1e-9)


class Verified(NamedTuple):
    """One verified token, as an observer hears of it."""

    verdict: Verdict
    draft: Drafted | None
    stop: StopDecision
    coin: float | None
    generator_seed: int | None  # of the turn; None where nothing is drawn
    result: Message  # of the last stage
    events: list[Event]  # that have become known since the one before


class PipelineObserver(Protocol):
    """Hears what happens to one turn, and changes nothing."""

    def turn_started(self, prompt_ids: list[int], reused_length: int, first: Verified) -> None:
        """The first token is known."""

    def token_verified(self, verified: Verified) -> None:
        """A further token is."""

    def turn_ended(self, turn: PipelineTurn, events: list[Event]) -> None:
        """After the last one, or when the turn was interrupted or failed."""
