"""The results of ``specscope diff-many``: one line per pair."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specscope.schemas.base import Float, Section
from specscope.schemas.phases import Phase
from specscope.schemas.verdict import Blame, DifferenceKind, Impact, Place

RESULT_SCHEMA: Literal["specscope.pair-result/1.0"] = "specscope.pair-result/1.0"
Judged = Literal["equal", "ties", "different", "incomparable", "uncovered", "error"]


class FirstRoot(Section):
    """The root that the card is about."""

    place: Place = Field(description="Where it is.")
    phase: Phase = Field(description="In which it is.")
    field: str = Field(description="Of the step's section.")
    kind: DifferenceKind = Field(description="That of the verdict's difference.")


class PairResult(Section):
    """What the comparison of one pair came to."""

    schema_: Literal["specscope.pair-result/1.0"] = Field(
        default=RESULT_SCHEMA, alias="schema", description="Name and version of this format."
    )
    name: str = Field(description="That the table gives the pair.")
    baseline: str = Field(description="Path of the trace that is taken for right.")
    candidate: str = Field(description="Path of the trace that is compared with it.")
    stamp: str = Field(description="What the result holds for: the files' sizes and times, and the settings.")
    verdict: Judged = Field(description="That of the comparison; error: it came to none.")
    exit_code: int = Field(description="That diff would exit with.")
    seconds: Float = Field(description="Of comparing.")
    first_root: FirstRoot | None = Field(default=None, description="Absent where there is none.")
    num_roots: int = Field(default=0, description="Ties are counted too.")
    num_inherited: int = Field(default=0, description="Differing steps that follow from a root.")
    first_violation: Blame | None = Field(
        default=None, description="Of the first invariant that one of the runs breaks."
    )
    impact: Impact | None = Field(default=None, description="Whether it matters; absent where there is no verdict.")
    error: str | None = Field(default=None, description="Why there is no verdict.")
    remarks: list[str] = Field(default_factory=list, description="Those of the verdict.")
