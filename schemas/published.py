"""The formats that others may read or write, each with its JSON Schema; those are committed beside the models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

from specscope.schemas.bisection import BISECTION_SCHEMA, Bisection
from specscope.schemas.pair_result import RESULT_SCHEMA, PairResult
from specscope.schemas.profile import PROFILE_SCHEMA, Profile
from specscope.schemas.trace import trace_json_schema
from specscope.schemas.verdict import VERDICT_SCHEMA, Verdict


@dataclass(frozen=True)
class Published:
    """One format."""

    file: str  # that its JSON Schema is committed as, in the folder of the models
    json_schema: Callable[[], dict[str, Any]]


def _of_model(model: type[BaseModel], title: str, description: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a format that is one model."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(by_alias=True, mode="validation"),
        "title": title,
        "description": description,
    }


#: By the name that ``specscope schema --of`` takes.
PUBLISHED = {
    "trace": Published("trace-v1.schema.json", trace_json_schema),
    "verdict": Published(
        "verdict-v2.schema.json",
        partial(_of_model, Verdict, VERDICT_SCHEMA, "What specscope diff --format json prints."),
    ),
    "results": Published(
        "pair-result-v1.schema.json",
        partial(_of_model, PairResult, RESULT_SCHEMA, "One line of the results of specscope diff-many."),
    ),
    "bisection": Published(
        "bisection-v1.schema.json",
        partial(_of_model, Bisection, BISECTION_SCHEMA, "What specscope bisect --format json prints."),
    ),
    "profile": Published(
        "profile-v1.schema.json",
        partial(_of_model, Profile, PROFILE_SCHEMA, "What specscope bench --calibrate writes."),
    ),
}
