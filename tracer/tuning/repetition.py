"""Turns whose output ends in a loop: the same few tokens again and again. Acceptance says little there, because almost
any drafter foresees the next round.

A turn counts as such where its last ``LEAST_TOKENS`` tokens or more each equal the token one period before them, the
period being ``LONGEST_PERIOD`` tokens at most, and where they make up ``LEAST_ROUNDS`` further rounds or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from specscope.schemas import Step
from specscope.tracer.tuning.walks import LONGEST

LONGEST_PERIOD = 32
LEAST_TOKENS = 32
LEAST_ROUNDS = 3


def repeated_tail(tokens: Sequence[int]) -> int:
    """How many tokens at the end repeat what stands one period before them, by the period that explains most; 0 where
    they are too few to be called a loop."""
    longest = 0
    for period in range(1, min(LONGEST_PERIOD, len(tokens) - 1) + 1):
        repeated = 0
        while repeated + period < len(tokens) and tokens[-1 - repeated] == tokens[-1 - repeated - period]:
            repeated += 1
        if repeated >= max(LEAST_TOKENS, LEAST_ROUNDS * period):
            longest = max(longest, repeated)
    return longest


@dataclass
class _Lengths:
    """Accepted lengths, added up."""

    total: int = 0
    num_steps: int = 0

    def add(self, length: int) -> None:
        self.total += length
        self.num_steps += 1

    @property
    def mean(self) -> float | None:
        return self.total / self.num_steps if self.num_steps else None


@dataclass(kw_only=True)
class Repetition:
    """Counts over turns."""

    num_turns: int = 0  # that end in a loop
    num_tokens: int = 0  # of all turns, as far as their steps emitted them
    num_repeated: int = 0  # of those, in loops
    may_draft: bool = False  # some step drafted, or does not say
    _inside: _Lengths = field(default_factory=_Lengths)  # of steps that begin in a loop
    _outside: _Lengths = field(default_factory=_Lengths)

    @property
    def mean_inside(self) -> float | None:
        """Mean accepted length of the steps that emit tokens of a loop alone; None where there are none."""
        return self._inside.mean

    @property
    def mean_outside(self) -> float | None:
        """The same of the other steps."""
        return self._outside.mean

    def words(self, *, num_read: int, num_steps: int) -> str | None:
        """What to know of it in a sentence, ``num_read`` of the run's steps having been counted; None where no turn
        ends in a loop, or nothing was drafted that could have foreseen it."""
        if not self.num_turns or not self.may_draft:
            return None
        turns = "1 turn ends" if self.num_turns == 1 else f"{self.num_turns:,} turns end"
        places = [(self.mean_inside, "in the loops"), (self.mean_outside, "elsewhere")]
        lengths = ", ".join(f"{mean:.2f} {where}" for mean, where in places if mean is not None)
        part = f" of the {num_read:,} steps read" if num_read < num_steps else ""
        words = f"{turns} in a loop, {self.num_repeated:,} of {self.num_tokens:,} tokens{part}"
        return f"{words}: accepted length {lengths}" if lengths else words

    def add_turn(self, steps: Sequence[Step]) -> None:
        """Counts the steps of one turn, in order; those that do not say what they emitted are left out."""
        known = [(step, step.stop.emitted[: max(0, step.stop.kept)]) for step in steps if step.stop is not None]
        tokens = [token for _, emitted in known for token in emitted]
        repeated = repeated_tail(tokens)
        self.num_turns += repeated > 0
        self.may_draft = self.may_draft or any(step.num_drafted != 0 for step in steps)
        self.num_tokens += len(tokens)
        self.num_repeated += repeated
        before = 0  # tokens of the turn before the step
        for step, emitted in known:
            if step.accepted_length is not None:
                lengths = self._inside if before >= len(tokens) - repeated else self._outside
                lengths.add(min(max(step.accepted_length, 0), LONGEST))
            before += len(emitted)
