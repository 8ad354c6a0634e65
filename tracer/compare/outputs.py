"""What a turn came to, whether or not its end was recorded. Knows records, no comparison."""

from __future__ import annotations

from typing import NamedTuple

from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader

#: Reasons by which a turn ends early, whatever it would have come to.
CANCELLED = "cancelled"
CUT_SHORT = (CANCELLED, "interrupted", "failed")


class Output(NamedTuple):
    """What a turn emitted, and what ended it."""

    token_ids: list[int]
    reason: str | None  # None where no end was recorded: the tokens are those of the recorded steps

    @property
    def is_whole(self) -> bool:
        """Whether the turn came to the end that its rules gave it."""
        return self.reason is not None and self.reason not in CUT_SHORT


def output_of(reader: TraceReader, turn: TurnEntry) -> Output:
    """The output of ``turn``.

    Raises:
        TraceError: where a record cannot be read.
    """
    end = reader.turn_end(turn)
    if end is not None:
        return Output(end.output_ids, end.reason)
    token_ids = list(reader.turn_start(turn).first_output)
    for step in reader.steps(turn):
        if step.stop is None:  # what follows it has no known place
            break
        token_ids += step.stop.emitted[: step.stop.kept]
    return Output(token_ids, None)


def shared_tokens(a: Output, b: Output, ends: frozenset[str]) -> int | None:
    """How many tokens two turns share, where one was cut short or ended before the other by one of the reasons
    ``ends``; None where none did."""
    if len(a.token_ids) == len(b.token_ids):
        return None
    shorter = min(a, b, key=lambda output: len(output.token_ids))
    return len(shorter.token_ids) if not shorter.is_whole or shorter.reason in ends else None


def outputs_differ(a: Output, b: Output, ends: frozenset[str] = frozenset()) -> bool:
    """Whether two turns came to other tokens, as far as both had to come."""
    shared = shared_tokens(a, b, ends)
    return a.token_ids[:shared] != b.token_ids[:shared]
