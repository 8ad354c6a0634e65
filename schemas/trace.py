"""A line of a trace to its record and back, and the JSON Schema of all of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic_core import from_json

from specscope.schemas.manifest import Manifest
from specscope.schemas.step import Step
from specscope.schemas.turn import Failure, RunEnd, TurnEnd, TurnStart
from specscope.schemas.version import SCHEMA_VERSION

AnyRecord = Annotated[Manifest | TurnStart | Step | TurnEnd | Failure | RunEnd, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)


def parse_line(line: bytes) -> Any:
    """The JSON value of one line, not yet validated.

    Raises:
        ValueError: where it is not JSON. A bare NaN or Infinity is none, although many parsers take it.
    """
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError as error:
        _refuse_bare_floats(line)
        raise ValueError(f"not JSON ({error})") from None


def _refuse_bare_floats(line: bytes) -> None:
    """Raises ValueError where a float that is not finite is all that keeps ``line`` from being JSON."""
    try:
        from_json(line)
    except ValueError:
        return
    raise ValueError('not JSON (a bare NaN or Infinity; write the string "NaN", "Infinity" or "-Infinity")')


def decode_record(line: bytes) -> AnyRecord:
    """The record of one line.

    Raises:
        pydantic.ValidationError: naming each field that is missing or wrong.
        ValueError: where the line is not JSON.
    """
    if b"NaN" in line or b"Infinity" in line:  # the validation would take them bare
        parse_line(line)
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
