"""What the teacher said at one node, or after a prompt, and which of two sides' numbers belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from specscope.schemas import Prefill, VerifySection
from specscope.schemas.verdict import Quantity


class EqualInputs(NamedTuple):
    """Two values of one quantity whose inputs are equal on both sides."""

    quantity: Quantity
    field: str  # where they stand, from the section on
    a: float
    b: float
    size: float  # of the numbers they were made of, where that is larger than they are
    level: int = 0  # of a draft score, from 1


@dataclass(frozen=True, kw_only=True)
class EqualLists:
    """Values of one quantity whose inputs are equal on both sides, in lists of one length."""

    quantity: Quantity
    field: str  # where they stand, from the section on
    a: list[float]
    b: list[float]
    least_size: float  # of the numbers that they were made of none is smaller; not finite where one of them is not
    made_of: Callable[[], list[float]]
    level: int = 0  # of draft scores, from 1

    @cached_property
    def sizes(self) -> list[float]:
        """Of the numbers each was made of; worked out where it is asked for."""
        return self.made_of()


@dataclass(frozen=True, kw_only=True)
class Said:
    """The teacher's choice at one place, with what is known of its logits."""

    best: int
    tokens: list[int]  # the best, best first; empty where they were not recorded
    logits: list[float]
    logsumexp: float | None = None
    entropy: float | None = None

    def logit_of(self, token: int) -> float | None:
        """Of ``token``; None where it is not among the best."""
        return self.logits[self.tokens.index(token)] if token in self.tokens[: len(self.logits)] else None

    @property
    def is_normalised(self) -> bool:
        """Whether its logits are log-probabilities."""
        return self.logsumexp == 0 and all(logit <= 0 for logit in self.logits)

    def normalised(self) -> Said:
        """With log-probabilities for logits; without logits where their sum is not known."""
        if self.logsumexp is None:
            return replace(self, logits=[])
        return replace(self, logits=[logit - self.logsumexp for logit in self.logits], logsumexp=None)

    @property
    def size(self) -> float:
        """Of its logits, as far as it is known; 0 where it is not."""
        return max((abs(value) for value in (*self.logits[:1], self.logsumexp) if value is not None), default=0.0)


def said_at(verify: VerifySection, slot: int) -> Said | None:
    """What was said at ``slot``; None where that was not recorded."""
    if slot >= len(verify.argmax):
        return None
    known = verify.top_logits is not None and verify.top_tokens is not None
    known = known and slot < min(len(verify.top_logits or ()), len(verify.top_tokens or ()))
    return Said(
        best=verify.argmax[slot],
        tokens=verify.best_tokens(slot) if known else [],
        logits=verify.best_logits(slot) if known else [],
        logsumexp=_at(verify.logsumexp, slot),
        entropy=_at(verify.entropy, slot),
    )


def said_behind(prefill: Prefill) -> Said | None:
    """What was said after a prompt; None where that is said in the first step."""
    if prefill.pending_token is None:
        return None
    best = prefill.top_tokens[0] if prefill.top_tokens and prefill.draw is not None else prefill.pending_token
    return Said(best=best, tokens=prefill.top_tokens or [], logits=prefill.top_logits or [])


def paired_numbers(a: Said, b: Said) -> Iterator[EqualInputs]:
    """The numbers that both sides recorded: logits of the same tokens, best first, then what is summed over all.

    Where their second best are other tokens, those two lie no further apart than one logit moved. Where one side knows
    log-probabilities alone, the other's are compared with them.
    """
    size, shared = max(a.size, b.size), 0
    if a.is_normalised != b.is_normalised:
        a, b = a.normalised(), b.normalised()
    if a.tokens == b.tokens:
        shared = min(len(a.tokens), len(a.logits), len(b.logits))
        for rank in range(shared):
            yield EqualInputs("logits", f"top_logits[{rank}]", a.logits[rank], b.logits[rank], size=size)
    else:
        for rank, (token, logit) in enumerate(zip(a.tokens, a.logits, strict=False)):
            other = b.logit_of(token)
            if other is not None:
                shared += 1
                yield EqualInputs("logits", f"top_logits[{rank}]", logit, other, size=size)
    if shared < 2 and len(a.logits) > 1 and len(b.logits) > 1:
        yield EqualInputs("logits", "top_logits[1]", a.logits[1], b.logits[1], size=size)
    if a.logsumexp is not None and b.logsumexp is not None:
        yield EqualInputs("logsumexp", "logsumexp", a.logsumexp, b.logsumexp, size=size)
    if a.entropy is not None and b.entropy is not None:
        yield EqualInputs("entropy", "entropy", a.entropy, b.entropy, size=size)


def _at(values: list[float] | None, slot: int) -> float | None:
    return values[slot] if values is not None and slot < len(values) else None
