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

    place: Place
    phase: Phase
    field: str
    kind: DifferenceKind


class PairResult(Section):
    """What the comparison of one pair came to."""

    schema_: Literal["specscope.pair-result/1.0"] = Field(RESULT_SCHEMA, alias="schema")
    name: str
    baseline: str
    candidate: str
    stamp: str = Field(description="What the result holds for: the files' sizes and times, and the settings.")
    verdict: Judged
    exit_code: int
    seconds: Float
    first_root: FirstRoot | None = None
    num_roots: int = 0
    num_inherited: int = 0
    first_violation: Blame | None = Field(None, description="Of the first invariant that one of the runs breaks.")
    impact: Impact | None = None
    error: str | None = Field(None, description="Why there is no verdict.")
    remarks: list[str] = Field(default_factory=list, description="Those of the verdict.")
