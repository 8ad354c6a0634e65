"""The tokens of a turn in order, with the step that emitted each and how it came about. Knows records, no markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from specscope.schemas import Step, TurnStart
from specscope.viewer.drawing.labels.nodes import draft_probability

#: first: the prompt's own forward gave it; accepted: it was drafted; bonus: the teacher's own, at the end of a step.
TokenKind = Literal["first", "accepted", "bonus", "unknown"]


class TextToken(NamedTuple):
    """One token of the output."""

    token: int
    kind: TokenKind
    step: int | None  # that emitted it; None for the first
    depth: int | None = None  # in the draft tree; None where it was not drafted
    probability: float | None = None  # the drafter's, given the parent


class TurnText(NamedTuple):
    """The output of one turn."""

    tokens: list[TextToken]
    nothing_accepted: frozenset[int]  # steps that accepted no drafted node
    texts: dict[int, str]  # visible text by token id
    unreadable: Sequence[int] = ()  # steps whose records cannot be read, so that their tokens are missing, in order

    @property
    def whole_tokens(self) -> list[TextToken]:
        """The output up to the first step whose tokens are missing."""
        if not self.unreadable:
            return self.tokens
        return [token for token in self.tokens if token.step is None or token.step < self.unreadable[0]]

    def shown(self, token: int) -> str:
        """The visible text of a token."""
        return self.texts.get(token, f"#{token}")


def tokens_of(start: TurnStart, steps: Iterable[Step]) -> list[TextToken]:
    """The output of a turn, the prompt left out."""
    tokens = []
    if start.prefill is not None and start.prefill.pending_token is not None:
        tokens.append(TextToken(start.prefill.pending_token, "first", None))
    for step in steps:
        tokens += _of_step(step)
    return tokens


def _of_step(step: Step) -> list[TextToken]:
    if step.stop is None:
        return []
    path = step.accept.path if step.accept is not None else None
    tokens = []
    for at, token in enumerate(step.stop.emitted[: max(0, step.stop.kept)]):
        if path is None:
            tokens.append(TextToken(token, "unknown", step.step))
        elif at < len(path):
            probability = _probability(step, path[at])
            tokens.append(TextToken(token, "accepted", step.step, depth=at + 1, probability=probability))
        else:
            tokens.append(TextToken(token, "bonus", step.step))
    return tokens


def _probability(step: Step, slot: int) -> float | None:
    known = step.tree is not None and 0 < slot < len(step.tree.tokens)
    return draft_probability(step, slot) if known else None


def nothing_accepted(steps: Iterable[Step]) -> frozenset[int]:
    """The numbers of the steps that drafted and accepted nothing."""
    return frozenset(
        step.step
        for step in steps
        if step.accept is not None
        and not step.accept.accepted_length
        and step.tree is not None
        and len(step.tree.tokens) > 1
    )


def first_difference(a: Sequence[TextToken], b: Sequence[TextToken]) -> int | None:
    """The first place where two outputs have other tokens, or where one ends before the other; None where there is
    none."""
    for at, (one_token, other) in enumerate(zip(a, b, strict=False)):
        if one_token.token != other.token:
            return at
    return None if len(a) == len(b) else min(len(a), len(b))
