"""Invariants of whole turns: outputs and counts recomputed from the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from specscope.schemas import Step, TurnEnd, TurnStart
from specscope.tracer.invariants.base import Invariant, first_mismatch, present


@dataclass
class TurnTally:
    """What the steps of a turn add up to; fed one by one, so that memory does not grow with them."""

    start: TurnStart
    output_ids: list[int] = field(default_factory=list)
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    accepted_by_depth: list[int] = field(default_factory=list)
    complete: bool = True  # every step had what the sums need
    end: TurnEnd | None = None
    last_reason: str | None = None  # of the last step's stop

    def __post_init__(self) -> None:
        self.output_ids.append(self.start.prefill.pending_token)

    def add(self, step: Step) -> None:
        """Counts one step."""
        self.num_steps += 1
        if step.stop is None or step.accept is None or step.tree is None:
            self.complete = False
            return
        self.output_ids += step.stop.emitted[: step.stop.kept]
        self.last_reason = step.stop.reason
        self.num_drafted += len(step.tree.tokens) - 1
        length = len(step.accept.path)
        self.num_accepted += length
        self.accepted_by_depth += [0] * (length - len(self.accepted_by_depth))
        for depth in range(length):
            self.accepted_by_depth[depth] += 1


def _output(t: TurnTally) -> str | None:
    return first_mismatch(present(t.end).output_ids, t.output_ids, "output token")


def _metrics(t: TurnTally) -> str | None:
    end = present(t.end)
    for name in ("num_steps", "num_drafted", "num_accepted", "accepted_by_depth"):
        got, wanted = getattr(end, name), getattr(t, name)
        if got != wanted:
            return f"{name}: got {got}, the steps give {wanted}"
    if t.num_steps and end.reason in ("eos", "length", "stop_string") and end.reason != t.last_reason:
        return f"the turn ended by {end.reason}, its last step by {t.last_reason}"
    return None


def _prefill(t: TurnTally) -> str | None:
    start, prefill = t.start, t.start.prefill
    if not all(map(math.isfinite, prefill.top_logits)):
        return f"the logits {prefill.top_logits} are not finite"
    if not prefill.top_tokens or prefill.pending_token not in prefill.top_tokens[:2]:
        return f"the pending token {prefill.pending_token} is not among the best, {prefill.top_tokens}"
    if prefill.num_tokens != len(start.prompt_ids) - start.reused_length:
        return f"{prefill.num_tokens} tokens were fed, {start.reused_length} of {len(start.prompt_ids)} were reused"
    return None


TURNS: tuple[Invariant[TurnTally], ...] = (
    Invariant("turn.output-is-sum", "the output is the pending token and what each step kept", _output),
    Invariant("turn.prefill", "the prompt was taken in, and the pending token is the teacher's", _prefill),
    Invariant("turn.metrics", "the turn's counts are those of its steps", _metrics),
)
