"""What was measured: one record per turn and variant, and how it is written as one line of JSON. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

from specscope.tracer.errors import UsageError

#: processor: of all threads of this process. What others do on the machine is not in it, and neither is any waiting.
Clock = Literal["wall", "processor"]


class TurnKey(NamedTuple):
    """What one variant's turn is compared by with another's: the same prompt in the same round."""

    round: int  # from 0
    prompt_id: str
    prompt_turn: int  # from 0


class VariantTurn(NamedTuple):
    """One turn as one variant decodes it."""

    variant: str
    round: int  # from 0
    prompt_id: str
    prompt_turn: int  # from 0


@dataclass(frozen=True, kw_only=True)
class TurnMeasure:
    """One turn as one variant decoded it. Where rows are decoded side by side, all turns of the prompts that were
    decoded together, under the first one's id."""

    variant: str
    round: int
    prompt_id: str
    prompt_turn: int
    category: str | None
    num_turns: int  # 1, or all that were decoded together
    num_tokens: int
    duration_ns: int  # wall time from before the prompt is taken in; what a trace's end takes included
    prefill_ns: int
    accepted_lengths: list[int]  # per step and row, without root and bonus
    phase_ns: dict[str, int]  # host time by phase, over all steps
    num_steps: int  # of the loop: of all rows together
    num_drafted: int
    trace_bytes: int  # tensor files included; 0 where nothing is traced
    output_digest: str  # equal outputs have equal ones
    rank: int = 0  # of the process that measured it

    @property
    def key(self) -> TurnKey:
        """What the other variants' turns are found by."""
        return TurnKey(self.round, self.prompt_id, self.prompt_turn)

    @property
    def variant_turn(self) -> VariantTurn:
        """Which of all measurements this is."""
        return VariantTurn(self.variant, *self.key)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over wall time."""
        return self.num_tokens / max(self.duration_ns / 1e9, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """The record as an object."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> TurnMeasure:
        """The record that ``to_json`` gave.

        Raises:
            UsageError: where a field is missing.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in entry]
        if missing:
            raise UsageError(f"got a measurement without {', '.join(missing)}: it was written by another version")
        return cls(**{name: entry[name] for name in names})
