"""The verdict of a diff, as ``specscope diff --format json`` prints it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specscope.schemas.base import Float, Section
from specscope.schemas.phases import Phase

VERDICT_SCHEMA = "specscope.verdict/2.1"

DifferenceKind = Literal["exact-tie", "near-tie", "real", "structural"]
#: The kinds that are no failure unless the user says so.
TIES: tuple[DifferenceKind, ...] = ("exact-tie", "near-tie")
Side = Literal["a", "b"]
VerdictKind = Literal["equal", "ties", "different", "incomparable", "uncovered"]
Quantity = Literal["logits", "logsumexp", "entropy", "draft-scores", "hidden-norms"]
Wrong = Literal["baseline", "candidate", "both", "neither"]
FloorSource = Literal["given", "noise-file", "this-pair", "dtype"]


class Contender(Section):
    """One of the two that a choice lay between, and what it scored on each side."""

    token: int | None = Field(default=None, description="Its id, where it is a token that was chosen.")
    node: list[int] | None = Field(default=None, description="Its path key, where it is a candidate of the drafter.")
    what: str | None = Field(
        default=None, description="Where it is a number by itself: coin, probability, threshold, end of the share."
    )
    a: Float | None = Field(
        default=None,
        description="Its score in the baseline: a logit; of a candidate, a log-probability, or a sum of them; or the"
        " number. Absent: not recorded.",
    )
    b: Float | None = Field(default=None, description="The same in the candidate.")


class Difference(Section):
    """One field that differs between two aligned steps."""

    phase: Phase = Field(description="In which it is.")
    field: str = Field(description="Of the step's section, dotted, with the number of a list's entry in brackets.")
    node: list[int] | None = Field(
        default=None, description="Path key of the node: token ids from below the root to it."
    )
    a: str = Field(description="The baseline's value.")
    b: str = Field(description="The candidate's value.")
    kind: DifferenceKind = Field(
        description="exact-tie and near-tie: noise may have decided either way; real: numbers, or what they decide;"
        " structural: what no noise changes."
    )
    inputs_equal: bool = Field(description="Whether everything that the value was computed from is equal.")
    margin_a: Float | None = Field(
        default=None,
        description="Gap between the two choices, in the baseline; of trees, from the worst node kept to the best one"
        " left out.",
    )
    margin_b: Float | None = Field(default=None, description="The same in the candidate.")
    floor: Float | None = Field(
        default=None, description="The noise floor that a float, or a margin, was compared with."
    )
    contenders: list[Contender] | None = Field(
        default=None,
        description="Where two sides chose differently by numbers that both recorded: what they chose, the baseline's"
        " first, with the scores of both on both sides. Of a draw, these are the coin and the end of a share.",
    )
    tie_break: str | None = Field(default=None, description="At an exact tie: how each side broke it.")
    tokens_a: list[int | list[int]] | None = Field(
        default=None,
        description="Where the baseline's value names tokens or nodes: token ids, or path keys as lists of them."
        " In a list of path keys a number alone is a slot, row or column without a node.",
    )
    tokens_b: list[int | list[int]] | None = Field(default=None, description="As tokens_a, of the candidate's value.")


class Place(Section):
    """Where an aligned pair of steps stands."""

    turn: int = Field(description="Number of the turn in the baseline.")
    turn_b: int = Field(description="Number of the turn in the candidate.")
    prompt_id: str = Field(description="Of the prompt that the turn belongs to.")
    prompt_turn: int = Field(description="Number of the turn in its prompt, from 0.")
    position: int | None = Field(
        default=None, description="Committed length at which the two steps begin; absent: not known."
    )
    step_a: int = Field(description="Number of the step in its turn, in the baseline.")
    step_b: int = Field(description="Number of the step in its turn, in the candidate.")


class Blame(Section):
    """A violated invariant on one side."""

    side: Side = Field(description="a: the baseline; b: the candidate.")
    invariant: str = Field(description="Its id, such as tensors.mask-is-ancestors.")
    witness: str = Field(description="What violates it, in words.")


class DriftFinding(Section):
    """Values that drift further on the whole than noise does; the root's place is where they begin to."""

    quantity: Quantity = Field(description="What drifts.")
    num_values: int = Field(description="Values that were measured.")
    typical: Float = Field(description="Their mean drift without the largest twentieth, in roundings.")
    allowed: Float = Field(
        description="What noise reaches at most, in the same way; 0 where it would leave every value equal."
    )
    share: Float = Field(description="Of the values, that drift further than that.")
    against: Literal["dtype", "noise-file", "same-kernels"] = Field(
        description="What tells what noise reaches: the dtype; the run of --noise; the same, where it says that the"
        " candidate's very kernels made it, on a device that repeats itself."
    )


class Root(Section):
    """A difference with equal inputs and unequal outputs, and what followed from it.

    Where nothing of a step that has equal inputs differs, and no root is open, the first difference stands in for what
    was not recorded; its ``inputs_equal`` is off.
    """

    place: Place = Field(description="Where it is.")
    difference: Difference = Field(description="The first of the step with equal inputs.")
    also: int = Field(description="Further differences of the same step.")
    inherited: int = Field(description="Differing steps after it that follow from it.")
    recurs: int = Field(
        default=0, description="Of a replay: later steps, each from equal state, that differ at the same place."
    )
    blame: list[Blame] = Field(description="Invariants violated at that step; empty where neither side violates one.")
    wrong: Wrong = Field(description="The side that violates an invariant at that step.")
    drift: DriftFinding | None = Field(
        default=None,
        description="Where no single value is out of bounds, but all of them drift further than noise does.",
    )
    deciding: list[str] = Field(
        default_factory=list, description="Where neither is wrong: what would have told, and what to record or run."
    )


class NoiseFloor(Section):
    """How far two floats of one quantity may lie apart and still be the same computation.

    A floor is a number of roundings: it holds at magnitude 16, and at any other in proportion to the spacing of floats
    there. One that was given is absolute up to magnitude 16, and grows in proportion above it.
    """

    quantity: Quantity = Field(description="What it is the floor of.")
    floor: Float = Field(description="At magnitude 16.")
    source: FloorSource = Field(
        description="given: by --tolerance. noise-file: measured between the baseline and the run of --noise."
        " this-pair: measured on values of this pair whose inputs are equal. dtype: too few values to measure."
    )
    sample_size: int = Field(description="Pairs of values that it was measured on; 0 where it was not measured.")
    median: Float | None = Field(default=None, description="Of their absolute differences, scaled as the floor is.")
    rounding: Float | None = Field(
        default=None, description="One rounding of the dtype at magnitude 16; absent where given."
    )
    typical: Float | None = Field(
        default=None,
        description="Mean drift of this pair without the largest twentieth, in roundings; absent where not measured.",
    )
    allowed: Float | None = Field(
        default=None, description="What that may come to: more is not noise, however small each value's own drift."
    )
    least: Float = Field(
        description="What another order of summation may do in this dtype; no measured floor is lower."
    )
    most: Float = Field(description="What the dtype may do at worst; a floor measured on this pair is never higher.")


class Impact(Section):
    """Whether it matters: what the two runs came to, over the turns that both have."""

    tokens_equal: bool = Field(description="Whether every turn's output ids are equal; off where none were compared.")
    tokens_compared: bool | None = Field(
        default=None, description="Off where a side records no token ids, but only how many there were. Absent: on."
    )
    num_tokens_a: int | None = Field(default=None, description="Output tokens of the baseline; absent: not known.")
    num_tokens_b: int | None = Field(default=None, description="Output tokens of the candidate; absent: not known.")
    num_steps_a: int = Field(description="Steps of the baseline.")
    num_steps_b: int = Field(description="Steps of the candidate.")
    accepted_length_a: Float | None = Field(default=None, description="Mean over the steps; excludes root and bonus.")
    accepted_length_b: Float | None = Field(default=None, description="The same of the candidate.")
    num_beyond_a: int = Field(
        default=0,
        description="Tokens after the end of the other run's turn, where that may come earlier or was cut short.",
    )
    num_beyond_b: int = Field(default=0, description="The same of the candidate's tokens.")
    num_reused_a: int = Field(default=0, description="Tokens of the prompts whose KV was taken from an earlier turn.")
    num_reused_b: int = Field(default=0, description="The same of the candidate.")


class Drift(Section):
    """Float differences within the noise floor, of one field."""

    field: str = Field(description="Dotted, with its section.")
    count: int = Field(description="Values that differ within the floor.")
    largest: Float = Field(description="The largest absolute difference of them.")


class Verdict(Section):
    """The whole comparison."""

    schema_: str = Field(default=VERDICT_SCHEMA, alias="schema", description="Name and version of this format.")
    verdict: VerdictKind = Field(
        description="equal; ties: only those; different: a root that is not a tie, or a violation; incomparable: the"
        " runs were not meant to be equal; uncovered: too much is missing to say."
    )
    exit_code: int = Field(description="That diff exits with.")
    baseline: str = Field(description="Path of the trace that is taken for right.")
    candidate: str = Field(description="Path of the trace that is compared with it.")
    rule: str = Field(description="The acceptance rule of the baseline in words, which say where it is lossy.")
    axis: list[str] = Field(description="What was meant to differ: field: baseline -> candidate.")
    incomparable: list[str] = Field(description="What was not meant to differ, but does.")
    uncovered: list[str] = Field(description="Why part of the pair could not be judged, although it should have been.")
    unjudged: list[str] = Field(
        description="What was not compared: a writer does not record it, or it follows from what was allowed to differ."
    )
    unknown: list[str] = Field(
        default_factory=list, description="Fields that no version known to this reader has, and what they may mean."
    )
    floors: list[NoiseFloor] = Field(description="One per quantity; empty where the pair is incomparable.")
    num_turns: int = Field(description="Turns that are in both traces.")
    num_steps: int = Field(description="Aligned pairs of steps that were compared.")
    num_regrouped: int = Field(description="Steps without a partner: the same tokens in other steps.")
    num_beyond: int = Field(
        default=0,
        description="Steps after the end of the other run's turn, where that may come earlier or was cut short.",
    )
    compared: dict[Phase, int] = Field(
        default_factory=dict, description="Of those pairs, in how many each phase was compared: both sides record it."
    )
    num_inherited: int = Field(description="Differing steps that follow from a root.")
    impact: Impact = Field(description="Whether it matters.")
    drift: list[Drift] = Field(description="Fields with differences within the noise floor.")
    roots: list[Root] = Field(description="In order; the first one is the card.")
    violations: list[Blame] = Field(description="The first violation of each invariant on each side, wherever it is.")
    loaded: list[str] = Field(
        [], description="Parameters that hold other values on the two sides, although their files are the same."
    )
    sensitivity: Float | None = Field(
        default=None,
        description="By what share of themselves all logits could be off together and pass as noise; absent where too"
        " few values were there to tell.",
    )
    next: list[str] = Field(description="The commands to run next, in a shell's words.")
    runs_again: bool | None = Field(
        default=None,
        description="Whether both traces say what it takes to run their steps again, as bisect and replay do; off where"
        " another engine wrote one, or its models' files are not named. Absent: not said.",
    )
    remarks: list[str] = Field(
        default_factory=list,
        description="What makes the verdict worth less than it reads: both traces are one file, or of one run.",
    )
