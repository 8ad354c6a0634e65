"""Whether it matters: tokens, steps and accepted lengths of the two runs, over the turns that both have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from specscope.schemas import TurnEnd
from specscope.schemas.verdict import Impact
from specscope.tracer.compare.align import TurnPair


@dataclass
class Tokens:
    """Output tokens so far."""

    num_a: int = 0
    num_b: int = 0
    equal: bool = True

    def add(self, a: TurnEnd | None, b: TurnEnd | None) -> None:
        """Counts one turn; an end that is missing has no tokens, and equals nothing but another one."""
        self.num_a += 0 if a is None else len(a.output_ids)
        self.num_b += 0 if b is None else len(b.output_ids)
        self.equal &= not outputs_differ(a, b)


def outputs_differ(a: TurnEnd | None, b: TurnEnd | None) -> bool:
    """Whether two turns came to other tokens."""
    return (None if a is None else a.output_ids) != (None if b is None else b.output_ids)


def impact_of(pairs: list[TurnPair], tokens: Tokens) -> Impact:
    """What the pairs' turns came to."""
    lengths_a = [length for pair in pairs for length in pair.a.accepted_lengths]
    lengths_b = [length for pair in pairs for length in pair.b.accepted_lengths]
    return Impact(
        tokens_equal=tokens.equal,
        num_tokens_a=tokens.num_a,
        num_tokens_b=tokens.num_b,
        num_steps_a=len(lengths_a),
        num_steps_b=len(lengths_b),
        accepted_length_a=_mean(lengths_a),
        accepted_length_b=_mean(lengths_b),
    )


def _mean(lengths: list[int]) -> float | None:
    """Infinite where a file holds a length beyond floats."""
    try:
        return sum(lengths) / len(lengths) if lengths else None
    except OverflowError:
        return math.inf
