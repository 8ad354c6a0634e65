"""The verdict of a diff, as ``specscope diff --format json`` prints it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specscope.schemas.base import Float, Section

VERDICT_SCHEMA = "specscope.verdict/1.1"

DifferenceKind = Literal["exact-tie", "near-tie", "real", "structural"]
Phase = Literal["draft", "tree", "tensors", "verify", "accept", "commit", "stop"]


class Difference(Section):
    """One field that differs between two aligned steps."""

    phase: Phase
    field: str
    node: list[int] | None = Field(None, description="Path key of the node: token ids from below the root to it.")
    a: str = Field(description="The baseline's value.")
    b: str = Field(description="The candidate's value.")
    kind: DifferenceKind
    inputs_equal: bool = Field(description="Whether everything that the value was computed from is equal.")
    margin_a: Float | None = Field(None, description="Gap between the two choices, in the baseline.")
    margin_b: Float | None = None


class Place(Section):
    """Where an aligned pair of steps stands."""

    turn: int = Field(description="Number of the turn in the baseline.")
    turn_b: int = Field(description="Number of the turn in the candidate.")
    prompt_id: str
    prompt_turn: int
    position: int = Field(description="Committed length at which the two steps begin.")
    step_a: int
    step_b: int


class Blame(Section):
    """A violated invariant on one side."""

    side: Literal["a", "b"]
    invariant: str
    witness: str


class Root(Section):
    """A difference with equal inputs and unequal outputs, and what followed from it."""

    place: Place
    difference: Difference
    also: int = Field(description="Further differences of the same step.")
    inherited: int = Field(description="Differing steps after it that follow from it.")
    blame: list[Blame] = Field(description="Invariants violated at that step; empty where neither side violates one.")


class Drift(Section):
    """Float differences within the tolerance, of one field."""

    field: str
    count: int
    largest: Float


class Verdict(Section):
    """The whole comparison."""

    schema_: str = Field(VERDICT_SCHEMA, alias="schema")
    verdict: Literal["equal", "ties", "different", "incomparable", "uncovered"]
    exit_code: int
    baseline: str
    candidate: str
    rule: str = Field(description="The acceptance rule of the baseline in words, which say where it is lossy.")
    axis: list[str] = Field(description="What was meant to differ: field: baseline -> candidate.")
    incomparable: list[str] = Field(description="What was not meant to differ, but does.")
    uncovered: list[str] = Field(description="Why part of the pair could not be judged.")
    tolerance: Float
    tolerance_source: str
    num_turns: int
    num_steps: int = Field(description="Aligned pairs of steps that were compared.")
    num_regrouped: int = Field(description="Steps without a partner: the same tokens in other steps.")
    num_inherited: int
    tokens_equal: bool = Field(description="Whether every turn's output ids are equal.")
    drift: list[Drift]
    roots: list[Root] = Field(description="In order; the first one is the card.")
    violations: list[Blame] = Field(description="The first violation of each invariant on each side, wherever it is.")
