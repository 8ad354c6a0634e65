"""Shapes of draft trees among which a run chooses before each step, by what they are measured to cost and to give."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from specscope.schemas.base import Digest, Float, Section


class TreeShape(Section):
    """One shape that a step's tree may have."""

    name: str = Field(description="Of the shape, such as none, chain-3 or bush-16; unique in its table.")
    kind: Literal["dynamic", "static", "chain", "none"] = Field(description="As that of tree_policy.")
    depth: int = Field(ge=0, description="Deepest level, in edges from the root.")
    top_k: int = Field(ge=0, description="Children proposed by each frontier node.")
    budget: int = Field(ge=0, description="Drafted nodes at most; the root is not one.")
    choices: list[list[int]] | None = Field(
        default=None, description="Nodes of a static tree or a chain, each the child ranks from the root."
    )
    tokens_per_step: Float = Field(description="Tokens that a row emits per step, as measured: accepted length + 1.")


class LoadTimes(Section):
    """What a step of each shape takes at one load."""

    rows: int = Field(ge=1, description="Rows that are decoded side by side.")
    context: int = Field(ge=0, description="Committed tokens of a row, on average over the rows.")
    step_ms: list[Float] = Field(description="Of a whole step of all rows: one for each shape of the table, in order.")


class ShapeTable(Section):
    """All that the choice of a shape depends on besides the load and the shape before."""

    profile: Digest = Field(description="Of the file of the profile that it was taken from.")
    hysteresis: Float = Field(
        description="Another shape is chosen only where it promises more than the one before by more than this share."
    )
    shapes: list[TreeShape] = Field(description="From the smallest to the largest; of equal ones the smaller is best.")
    loads: list[LoadTimes] = Field(
        description="Every combination of some numbers of rows and some contexts. Between them, times lie on the planes"
        " through their neighbours; beyond them, they are those of the nearest."
    )

    @model_validator(mode="after")
    def _can_be_chosen_from(self) -> ShapeTable:
        names = [shape.name for shape in self.shapes]
        if not names or len(set(names)) < len(names):
            raise ValueError("wanted at least one shape, and a name of its own for each")
        places = {(load.rows, load.context) for load in self.loads}
        if not places or not len(places) == len(self.loads) == len(self.all_rows) * len(self.all_contexts):
            raise ValueError("wanted one load for every combination of rows and contexts")
        if any(len(load.step_ms) != len(names) for load in self.loads):
            raise ValueError("wanted a time for each shape at every load")
        times = [time for load in self.loads for time in load.step_ms]
        if not all(0 < value < float("inf") for value in (*times, *(s.tokens_per_step for s in self.shapes))):
            raise ValueError("wanted times and tokens above 0")
        if not 0 <= self.hysteresis < 1:
            raise ValueError("wanted a hysteresis from 0 to below 1")
        return self

    @property
    def all_rows(self) -> list[int]:
        """The numbers of rows that were measured, ascending."""
        return sorted({load.rows for load in self.loads})

    @property
    def all_contexts(self) -> list[int]:
        """The contexts that were measured, ascending."""
        return sorted({load.context for load in self.loads})


class ShapeSection(Section):
    """The shape that was chosen for a step of all rows, and why."""

    name: str = Field(description="Of the shape that the step's trees have.")
    rows: int = Field(ge=1, description="Rows that take the step.")
    context: int = Field(
        ge=0, description="Committed tokens of a row before the step: the mean over the rows, rounded down."
    )
    before: str | None = Field(
        default=None,
        description="Shape of the step before, which may be of other turns; before the first step, the one without"
        " drafts, where the table has it.",
    )
    reason: Literal["first", "best", "better", "kept"] = Field(
        description="first: no step came before, and it promises the most; best: the shape before still promises the"
        " most; better: it promises more than the one before by more than the hysteresis; kept: another promises more"
        " than the one before, but not by so much."
    )
    promised: Float = Field(description="Tokens per second of all rows that the profile predicts with this shape.")
    best: str = Field(description="Name of the shape that promises the most.")
    best_promised: Float = Field(description="The same of that one.")
