"""A line of a trace to its record and back, and the JSON Schema of all of them."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from specscope.schemas.base import IsTokenId
from specscope.schemas.manifest import Manifest
from specscope.schemas.step import Step
from specscope.schemas.turn import Failure, RunEnd, TurnEnd, TurnStart
from specscope.schemas.version import SCHEMA_VERSION

AnyRecord = Annotated[Manifest | TurnStart | Step | TurnEnd | Failure | RunEnd, Field(discriminator="kind")]

#: How nearly every line begins that is a step: there the union need not look for the kind first.
_STEP_HEAD = re.compile(rb'\{"seq":\d+,"kind":"step",')
_STEP = Step.__pydantic_validator__
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
    # The validation would take them bare. One letter is found ten times as fast as a word.
    if (b"N" in line and b"NaN" in line) or (b"I" in line and b"Infinity" in line):
        parse_line(line)
    if _STEP_HEAD.match(line):
        with suppress(ValidationError):  # the union's own words name the record's kind
            step: Step = _STEP.validate_json(line)
            return step
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


@cache
def token_fields() -> frozenset[str]:
    """Names of the fields that hold token ids, in whichever record: no other field is named so."""
    names: set[str] = set()
    for kind in get_args(get_args(AnyRecord)[0]):
        _collect_token_fields(kind, names)
    return frozenset(names)


def _collect_token_fields(model: type[BaseModel], names: set[str]) -> None:
    for name, field in model.model_fields.items():
        parts = [*field.metadata, *_parts_of(field.annotation)]
        if any(isinstance(part, IsTokenId) for part in parts):
            names.add(name)
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                _collect_token_fields(part, names)


def _parts_of(annotation: Any) -> list[Any]:
    """Everything that a type is made of, itself included."""
    return [annotation, *(part for inner in get_args(annotation) for part in _parts_of(inner))]
