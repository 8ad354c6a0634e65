"""What a bisection found: as ``specscope bisect --format json`` prints it, and as its state file keeps it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specscope.schemas.base import Digest, Float, Section
from specscope.schemas.phases import Phase
from specscope.schemas.verdict import Difference

BISECTION_SCHEMA = "specscope.bisection/1.1"
STATE_SCHEMA = "specscope.bisection-state/2.0"

#: unsteady: a side differs from itself. violation: an invariant that a recording violates is all that is wrong, and the
#: re-run violates it, too; or no step was run, for the diff has no root. not-reproduced: nothing was found, and it is
#: not what was recorded.
Outcome = Literal["unsteady", "operation", "prefix", "phase", "not-reproduced", "equal", "violation"]


Measure = Literal["logits", "draft scores"]


class OperationError(Section):
    """How far one operation of the candidate is off, fed what the baseline's was fed."""

    layer: int | None = Field(default=None, description="Absent before and behind the layers, and in a drafter.")
    level: int | None = Field(
        default=None, description="The drafter's forward that it is of, from 1; absent: the teacher's."
    )
    operation: str = Field(description="Its name, such as attention or MLP.")
    in_place: bool = Field(
        default=False, description="Whether it is off within the step's whole forward, although by itself it is right."
    )
    error: Float = Field(description="L2 norm of the difference, relative to that of the baseline's output.")
    floor: Float = Field(description="The largest error that rounding explains.")
    sample_size: int = Field(description="Layers that the floor was measured on; 0: rounding alone.")
    at_ceiling: bool = Field(description="Whether the sample asked for more than honest kernels come to at worst.")


class Prefix(Section):
    """The committed tokens' keys and values before the step, the baseline's beside the candidate's."""

    errors: list[Float] = Field(description="Relative L2 error, a layer each.")
    floor: Float = Field(description="The largest error that rounding explains.")
    first_layer: int | None = Field(default=None, description="The first whose error is above the floor; absent: none.")
    first_position: int | None = Field(
        default=None, description="The first position in that layer that is off by as much."
    )
    committed_by: int | None = Field(
        default=None, description="The step of the turn that committed it; absent: the prefill."
    )


class Graft(Section):
    """One value of the baseline put into the candidate's step, and whether the rest heals."""

    what: str = Field(description="The value that was put in, in words.")
    measure: Measure = Field(description="What the errors are of.")
    before: Float = Field(description="Error without it: relative L2 of the logits, or the largest gap of scores.")
    after: Float = Field(description="The same error with it.")
    floor: Float = Field(description="The largest error that rounding explains.")
    heals: bool = Field(description="Whether the error with it is within the floor.")


class Circumstances(Section):
    """What one side's re-run had of what a run has, and what not."""

    neighbours: int = Field(default=0, description="Rows that ran beside the step's.")
    in_batch: bool = Field(
        default=False, description="Whether it ran in the rows of the recorded batch, up to the step."
    )
    lost_hand_over: bool = Field(
        default=False,
        description="Whether layers that the drafter had run were run again, for the recorded tree was another.",
    )
    others: list[str] = Field(default_factory=list, description="What is here otherwise, in words.")


class RecordedViolation(Section):
    """An invariant that the recorded step violates."""

    side: Literal["baseline", "candidate"] = Field(description="Whose recording it is.")
    invariant: str = Field(description="Its id.")
    witness: str = Field(description="What violates it, in words.")
    again: bool = Field(description="Whether the re-run violates it, too.")


class Recordings(Section):
    """The step as it was recorded, compared with itself and with its re-run."""

    aligned: bool = Field(description="Whether the candidate recorded a step behind the same tokens.")
    difference: Difference | None = Field(
        default=None, description="The first between the two recordings that is not a tie."
    )
    baseline: Difference | None = Field(
        default=None, description="The first between the baseline's recording and its re-run."
    )
    candidate: Difference | None = Field(default=None, description="The same of the candidate.")
    violations: list[RecordedViolation] = Field(default_factory=list, description="Those of both recordings.")
    lacking: list[str] = Field(
        default_factory=list, description="What the recorded runs had and the re-runs have not, in words."
    )

    @property
    def as_recorded(self) -> bool:
        """Whether all four are the same step, and a sound one."""
        same = self.difference is None and self.baseline is None and self.candidate is None
        return self.aligned and same and not self.violations


class SelfDifference(Section):
    """A side whose verify forward gave something else when it was run again on the same inputs."""

    side: Literal["baseline", "candidate"] = Field(description="Which one.")
    layer: int | None = Field(
        default=None, description="Of the first operation that differs; absent before and after them."
    )
    operation: str | None = Field(default=None, description="Absent where the model's parts are unknown.")
    error: Float = Field(description="Relative L2 error of that operation, or else of the logits.")


class NarrowedDraft(Section):
    """The drafter's operations, level by level, from equal pairs."""

    operations: list[OperationError] = Field(description="In the order in which they run.")
    culprit: OperationError | None = Field(default=None, description="The first above its floor; absent: none.")


class Compared(Section):
    """The step in both configurations, by its records."""

    difference: Difference | None = Field(
        default=None, description="The first in the order of the phases that is not a tie."
    )
    inputs_equal: bool = Field(description="Whether the verify forwards were given the same.")
    logits_error: Float = Field(description="Relative L2 error of the verify forward's logits, in the step.")
    alone_error: Float = Field(description="The same of the forward run once more, by itself.")
    prefix_errors: list[Float] = Field(description="Relative L2 error of the committed keys and values, per layer.")
    position_errors: list[Float] = Field(description="The same per position, the largest of the layers.")
    draft_gap: Float = Field(description="The largest gap of the draft's scores; infinite where candidates differ.")
    draft_floor: Float = Field(description="The noise floor of the draft's scores.")
    committed: int = Field(description="Tokens that were committed when the step began.")
    lengths_equal: bool = Field(description="Whether both sides held as many.")
    neighbours: int = Field(description="Rows that ran beside the candidate's step.")
    recordings: Recordings = Field(description="What was recorded of the step.")
    unsteady: list[SelfDifference] = Field(default_factory=list, description="Sides that differ from themselves.")
    notes: list[str] = Field(description="What else to know, in words.")


class State(Section):
    """A bisection that is under way."""

    schema_: str = Field(default=STATE_SCHEMA, alias="schema", description="Name and version of this format.")
    baseline: Digest = Field(description="Over the baseline's trace.")
    candidate: Digest = Field(description="Over the candidate's trace.")
    turn: int = Field(description="In the baseline.")
    step: int = Field(description="Number of the step in its turn, in the baseline.")
    settings: list[str] = Field(description="What was said on the command line that decides the numbers.")
    compared: Compared | None = Field(default=None, description="The first stage.")
    draft: NarrowedDraft | None = Field(
        default=None, description="Absent where the drafts do not differ from equal pairs."
    )
    draft_graft: Graft | None = Field(default=None, description="The baseline's pairs, fed to the candidate's drafter.")
    layers: dict[str, dict[str, Float]] = Field(
        default_factory=dict,
        description="Errors of each layer's operations, by the layer's number and the operation's name.",
    )
    ends: dict[str, Float] | None = Field(
        default=None, description="Errors of the operations before and after the layers, by name."
    )
    departure: OperationError | None = Field(
        default=None, description="Where the two whole forwards part although each operation by itself is right."
    )
    grafts: list[Graft] | None = Field(default=None, description="The last stage; with it, all is done.")


class Bisection(Section):
    """The whole answer."""

    schema_: str = Field(default=BISECTION_SCHEMA, alias="schema", description="Name and version of this format.")
    outcome: Outcome = Field(description="What was concluded.")
    exit_code: int = Field(description="That bisect exits with.")
    baseline: str = Field(description="Path of the trace whose step is taken for right.")
    candidate: str = Field(description="Path of the other trace.")
    baseline_settings: str = Field(
        description="Mode, dtype, device and what else tells the configuration apart, in words."
    )
    candidate_settings: str = Field(description="The same of the candidate.")
    turn: int | None = Field(default=None, description="In the baseline; absent where no step differs.")
    step: int | None = Field(default=None, description="Number of the step in its turn, in the baseline.")
    committed: int | None = Field(default=None, description="Tokens that were committed when the step began.")
    phase: Phase | None = Field(default=None, description="Where the cause lies.")
    difference: Difference | None = Field(default=None, description="What of the records differs first.")
    neighbours: int = Field(default=0, description="Rows that ran beside the candidate's step.")
    inputs_equal: bool | None = Field(default=None, description="Whether the verify forwards were given the same.")
    recordings: Recordings | None = Field(
        default=None, description="What was recorded of the step, beside what came of it again."
    )
    unsteady: list[SelfDifference] = Field(default_factory=list, description="Sides that differ from themselves.")
    culprit: OperationError | None = Field(default=None, description="The first operation above its floor.")
    also: int = Field(default=0, description="Further operations above their floors.")
    operations: list[OperationError] = Field(
        default_factory=list, description="Every operation that was run, in order."
    )
    prefix: Prefix | None = Field(default=None, description="The committed keys and values before the step.")
    grafts: list[Graft] = Field(
        default_factory=list, description="Values of the baseline that were put into the candidate."
    )
    notes: list[str] = Field(default_factory=list, description="What else to know, in words.")
    next: list[str] = Field(default_factory=list, description="The commands to run next, in a shell's words.")
