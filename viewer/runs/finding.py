"""Finds steps by what is known of them: accepted length, what is wrong, violated invariants, margins, texts. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from specscope.tracer.errors import UsageError
from specscope.viewer.drawing.svg.strip import StepState

#: What ``is:`` understands, and the states that it means.
KINDS: dict[str, tuple[StepState, ...]] = {
    "violated": ("violated",),
    "failed": ("failed",),
    "divergence": ("root",),
    "tie": ("tie",),
    "follows": ("inherited",),
    "unpaired": ("unpaired",),
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER = re.compile(r"(<=|>=|<|>|=|)(\d+(?:\.\d+)?(?:e-?\d+)?)", re.ASCII)
HOW = (
    "accepted:0, accepted:>=4, committed:<200, is:violated, is:divergence, is:tie, violates:mask, kind:structural,"
    " margin:<0.01, or a part of a token's text or of a prompt's name; several words must all fit"
)


class StepFacts(NamedTuple):
    """What is known of one step."""

    turn: int
    step: int
    prompt: str
    accepted: int
    state: StepState
    violated: tuple[str, ...]  # ids of invariants
    kind: str  # of the root that begins there; empty for none
    text: str  # visible texts of what it emitted
    margin: float | None  # the smallest gap between the two best logits where the walk stood
    committed: int | None = None  # tokens before the step; None where it is not known


@dataclass(frozen=True)
class Query:
    """What is looked for; a step must fit every test."""

    tests: tuple[Callable[[StepFacts], bool], ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not self.tests

    def find(self, steps: Iterable[StepFacts]) -> list[StepFacts]:
        """The steps that fit, in order."""
        return [step for step in steps if all(test(step) for test in self.tests)]


def parse_query(words: str) -> Query:
    """The query that ``words`` ask for.

    Raises:
        UsageError: where a word cannot be understood.
    """
    return Query(tuple(_test(word) for word in words.split()))


def _test(word: str) -> Callable[[StepFacts], bool]:
    name, colon, value = word.partition(":")
    if not colon or name not in ("accepted", "committed", "is", "violates", "kind", "margin"):
        wanted = word.lower()
        return lambda step: wanted in step.text.lower() or wanted in step.prompt.lower()
    if name == "is":
        return _is(value)
    if name == "violates":
        return lambda step: any(value.lower() in invariant for invariant in step.violated)
    if name == "kind":
        return lambda step: bool(step.kind) and value.lower() in step.kind
    compare, number = _number(name, value)
    if name == "accepted":
        return lambda step: compare(step.accepted, number)
    if name == "committed":
        return lambda step: step.committed is not None and compare(step.committed, number)
    return lambda step: step.margin is not None and compare(step.margin, number)


def _is(value: str) -> Callable[[StepFacts], bool]:
    if value not in KINDS:
        raise UsageError(f"got is:{value}, wanted one of {', '.join(f'is:{kind}' for kind in KINDS)}")
    states = KINDS[value]
    return lambda step: step.state in states or (value == "violated" and bool(step.violated))


class _Comparison(NamedTuple):
    compare: Callable[[float, float], bool]
    number: float


def _number(name: str, value: str) -> _Comparison:
    parts = _NUMBER.fullmatch(value)
    if parts is None:
        raise UsageError(f"got {name}:{value}, wanted a number, such as {name}:>=2 or {name}:0")
    return _Comparison(COMPARISONS[parts[1]], float(parts[2]))
