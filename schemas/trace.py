"""A line of a trace to its record and back, and the JSON Schema of all of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from specscope.schemas.manifest import Manifest
from specscope.schemas.step import Step
from specscope.schemas.turn import Failure, RunEnd, TurnEnd, TurnStart
from specscope.schemas.version import SCHEMA_VERSION

AnyRecord = Annotated[Manifest | TurnStart | Step | TurnEnd | Failure | RunEnd, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)


def decode_record(line: bytes) -> AnyRecord:
    """The record of one line.

    Raises:
        pydantic.ValidationError: naming each field that is missing or wrong.
    """
    return _ADAPTER.validate_json(line)


def encode_record(record: AnyRecord) -> bytes:
    """One line, with its newline. Fields that are None are left out."""
    return record.__pydantic_serializer__.to_json(record, exclude_none=True, by_alias=True) + b"\n"


def trace_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that each line of a trace satisfies."""
    schema = _ADAPTER.json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": str(SCHEMA_VERSION),
        "description": "One line of a SpecScope trace.",
        **schema,
    }
