"""Whether it matters: tokens, steps and accepted lengths of the two runs, over the turns that both have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from specscope.schemas.verdict import Impact
from specscope.tracer.compare.align import TurnPair
from specscope.tracer.compare.outputs import Output, outputs_differ, shared_tokens


@dataclass(kw_only=True)
class Tokens:
    """Output tokens so far, over what both runs should have reached."""

    num_a: int = 0
    num_b: int = 0
    beyond_a: int = 0  # after the other's end, which was allowed to come earlier, or was cut short
    beyond_b: int = 0
    equal: bool = True
    compared: bool = True  # off where a side records no token ids
    reused_a: int = 0  # tokens of the prompts
    reused_b: int = 0
    shared: dict[int, int] = field(default_factory=dict)  # turn of the baseline -> its shared tokens, where cut off

    def add(self, turn: int, a: Output, b: Output, ends: frozenset[str]) -> None:
        """Counts one turn, as far as both recorded it. ``ends`` are the reasons by which one side may end a turn before
        the other."""
        nums = [len(output.token_ids) for output in (a, b)]
        self.equal &= not outputs_differ(a, b, ends)
        shared = shared_tokens(a, b, ends)
        if shared is not None:
            self.shared[turn] = shared
            self.beyond_a += nums[0] - shared
            self.beyond_b += nums[1] - shared
            nums = [shared, shared]
        self.num_a += nums[0]
        self.num_b += nums[1]


def impact_of(pairs: list[TurnPair], tokens: Tokens) -> Impact:
    """What the pairs' turns came to."""
    shared = [tokens.shared.get(pair.a.turn) for pair in pairs]
    lengths_a = [n for pair, most in zip(pairs, shared, strict=True) for n in _within(pair.a.accepted_lengths, most)]
    lengths_b = [n for pair, most in zip(pairs, shared, strict=True) for n in _within(pair.b.accepted_lengths, most)]
    compared = tokens.compared and bool(pairs)
    return Impact(
        tokens_equal=tokens.equal and compared,
        tokens_compared=None if compared else False,
        num_tokens_a=tokens.num_a,
        num_tokens_b=tokens.num_b,
        num_steps_a=len(lengths_a),
        num_steps_b=len(lengths_b),
        accepted_length_a=_mean(lengths_a),
        accepted_length_b=_mean(lengths_b),
        num_beyond_a=tokens.beyond_a,
        num_beyond_b=tokens.beyond_b,
        num_reused_a=tokens.reused_a,
        num_reused_b=tokens.reused_b,
    )


def _within(lengths: Sequence[int], shared: int | None) -> Sequence[int]:
    """The accepted lengths of the steps that begin within the shared tokens; None: of all."""
    return lengths if shared is None else lengths[: steps_within(lengths, shared)]


def steps_within(lengths: Sequence[int], shared: int) -> int:
    """How many steps begin within the first ``shared`` output tokens; the prefill's stands before the first step. An
    engine without one is taken for one that has it, and may be counted a step short."""
    emitted = 1
    for number, length in enumerate(lengths):
        if emitted >= shared:
            return number
        emitted += length + 1
    return len(lengths)


def _mean(lengths: list[int]) -> float | None:
    """Infinite where a file holds a length beyond floats."""
    try:
        return sum(lengths) / len(lengths) if lengths else None
    except OverflowError:
        return math.inf
