"""The tree dispatcher: before each step, it chooses the shape of the step's trees by what the rows have to do.

Knows no transformers. Of the file format it uses how a shape is said. The decision itself is ``tracer.shapes``; here
is what it is made of and what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, cast

from specscope.engine.drafters.base import Drafter, innermost
from specscope.engine.tree.policy import TreePolicy, policy_of_shape
from specscope.schemas import ShapeSection, ShapeTable
from specscope.tracer.shapes import Load, choose_shape


@dataclass(kw_only=True)
class TreeDispatcher:
    """Chooses among the shapes of a table, for the rows of one session."""

    table: ShapeTable
    before: str | None = field(init=False)  # the shape of the step before
    recorded: ShapeSection | None = None  # of a step that is run again: its choice, which is followed
    policies: dict[str, TreePolicy] = field(init=False)

    def __post_init__(self) -> None:
        self.policies = {shape.name: policy_of_shape(shape) for shape in self.table.shapes}
        self.begin()

    def begin(self) -> None:
        """The next step is the first: drafts must be worth more than none by more than the hysteresis, as a shape must
        that follows another. What a profile promises by little is within what it is off by."""
        self.before = next((shape.name for shape in self.table.shapes if shape.kind == "none"), None)

    def choose(self, committed_lengths: list[int]) -> ShapeSection:
        """The shape of the next step of rows with these lengths, and why."""
        choice = self.recorded
        if choice is None or choice.name not in self.policies:
            choice = choose_shape(self.table, Load.of(committed_lengths), self.before)
        self.before = choice.name
        return choice

    def prepare(self, drafter: Drafter, choice: ShapeSection) -> None:
        """From now on ``drafter`` grows trees of the shape chosen."""
        follow_policy(drafter, self.policies[choice.name])


class _Grower(Protocol):
    """A drafter that grows trees, by whatever policy it has just then."""

    policy: TreePolicy


def follow_policy(drafter: Drafter, policy: TreePolicy) -> None:
    """From now on ``drafter``, which drafts trees, grows them by ``policy``."""
    cast(_Grower, innermost(drafter)).policy = policy
