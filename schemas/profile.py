"""A profile: what steps cost on one device with one pair of models, and what they accept.

``specscope bench --calibrate`` measures and writes it; ``run --tree auto`` and ``whatif`` predict by it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from specscope.schemas.base import Digest, Float, Section
from specscope.schemas.manifest import Device, Drafter, Sampling, Teacher
from specscope.schemas.shapes import TreeShape

PROFILE_SCHEMA: Literal["specscope.profile/1.0"] = "specscope.profile/1.0"


class Spread(Section):
    """Times of the same thing, measured again and again."""

    median_ms: Float = Field(description="Half of the samples took no longer.")
    low_ms: Float = Field(description="A quarter of the samples took no longer.")
    high_ms: Float = Field(description="Three quarters of the samples took no longer.")


class MeasuredStep(Section):
    """Steps of all rows with one shape at one load."""

    shape: str = Field(description="Name of the shape.")
    rows: int = Field(ge=1, description="Rows that were decoded side by side.")
    context: int = Field(ge=0, description="Committed tokens of a row, on average over the steps of this context.")
    num_samples: int = Field(ge=1, description="Steps that were timed.")
    step: Spread = Field(description="Of whole steps, by the wall clock.")
    draft: Spread = Field(description="Of drafting, and of taking in what was committed before.")
    verify: Spread = Field(description="Of the teacher's forward over all slots of all rows.")


class MeasuredShape(TreeShape):
    """A shape and what it accepted."""

    num_samples: int = Field(ge=1, description="Steps of single rows that were counted.")
    deviation: Float = Field(description="Standard deviation of the accepted length over these steps.")


class AcceptedAt(Section):
    """How often the walk of a step went on to the child of one rank, where fixed shapes had it."""

    depth: int = Field(ge=1, description="Of the child, in edges from the root.")
    rank: int = Field(ge=0, description="Of the child among its siblings; 0 is the drafter's best.")
    tried: int = Field(ge=0, description="Walks that stood at the parent of such a child.")
    accepted: int = Field(ge=0, description="Of these, the walks that went on to it.")


class ProfiledTexts(Section):
    """What was decoded while measuring."""

    name: str = Field(description="Of the suite, or of the files.")
    digest: Digest = Field(description="Over the token ids of all prompts, in the order in which they were begun.")


class Profile(Section):
    """All that was measured, and on what."""

    schema_: Literal["specscope.profile/1.0"] = Field(
        default=PROFILE_SCHEMA, alias="schema", description="Name and version of this format."
    )
    created: str = Field(description="UTC, ISO 8601.")
    engine: str = Field(description="Name and version of the engine that measured.")
    versions: dict[str, str] = Field(description="Versions of the libraries that computed.")
    device: Device = Field(description="Where the models ran.")
    mode: str = Field(description="fused or eager, as that of a trace's manifest.")
    attention: str = Field(description="The attention implementation that was asked for.")
    dtype: str = Field(description="Of the teacher's weights and logits.")
    graph: str = Field(description="How verify forwards are captured, as that of a trace's manifest.")
    products: str | None = Field(
        default=None,
        description="What multiplied by linear layers' weights, as in a trace's manifest. Absent: not known.",
    )
    cache_strategy: str = Field(description="The commit strategy.")
    teacher: Teacher = Field(description="The model whose output is preserved.")
    drafter: Drafter = Field(description="What proposes tokens.")
    sampling: Sampling = Field(description="The acceptance rule.")
    texts: ProfiledTexts = Field(description="What was decoded.")
    rounds: int = Field(ge=1, description="How often each shape was timed at each load.")
    clock: Literal["wall", "processor"] | None = Field(
        default=None,
        description="What times are of: wall, the time that passed; processor, what the process computed in it. Absent:"
        " wall.",
    )
    shapes: list[MeasuredShape] = Field(description="From the smallest to the largest.")
    steps: list[MeasuredStep] = Field(description="Each shape at every combination of rows and contexts.")
    acceptance: list[AcceptedAt] = Field(description="By depth, then by rank.")

    @model_validator(mode="after")
    def _is_whole(self) -> Profile:
        names = [shape.name for shape in self.shapes]
        loads = {(step.rows, step.context) for step in self.steps}
        measured = {(step.shape, step.rows, step.context) for step in self.steps}
        rows, contexts = ({load[at] for load in loads} for at in (0, 1))
        if not names or len(set(names)) < len(names):
            raise ValueError("wanted at least one shape, and a name of its own for each")
        if not loads or len(loads) != len(rows) * len(contexts):
            raise ValueError("wanted every combination of rows and contexts")
        num_wanted = len(names) * len(loads)
        if not len(measured) == len(self.steps) == num_wanted or {step.shape for step in self.steps} != set(names):
            raise ValueError("wanted one measurement of each shape at every load")
        return self
