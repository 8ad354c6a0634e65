"""What was measured: one record per load, way and round. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BatchMeasure:
    """One load, decoded in one way, in one round."""

    rows: int
    context: int  # tokens of each row when the round begins
    round: int  # from 0
    way: str
    num_tokens: int  # emitted by all rows
    num_steps: int
    duration_ns: int
    shapes: Mapping[str, int]  # steps by the shape that was chosen; empty without speculation

    @property
    def goodput(self) -> float:
        """Tokens per second of all rows."""
        return self.num_tokens / (self.duration_ns / 1e9)

    @property
    def tokens_per_step(self) -> float:
        """Of one row."""
        return self.num_tokens / (self.num_steps * self.rows)

    @property
    def token_ms(self) -> float:
        """From one token of a row to the next, on average."""
        return self.duration_ns / 1e6 * self.rows / self.num_tokens

    def to_json(self) -> dict[str, Any]:
        """The record as an object."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> BatchMeasure:
        """The record that ``to_json`` gave."""
        return cls(**{field.name: entry[field.name] for field in fields(cls)})
