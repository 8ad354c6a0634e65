"""Records on disk: round trips, strictness, non-finite floats, unknown fields, and the committed JSON Schema."""

from __future__ import annotations

import json
import math

import jsonschema
import pytest
from pydantic import ValidationError
from support.traces import EAGER, FAULTY, FUSED, ROOT, load

from specscope.schemas import SCHEMA_VERSION, SchemaVersion, Step, decode_record, encode_record, trace_json_schema

SCHEMA_FILE = ROOT / "schemas" / "trace-v1.schema.json"


def test_the_committed_json_schema_is_the_models_own() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == trace_json_schema(), (
        "run: specscope schema > schemas/trace-v1.schema.json"
    )


@pytest.mark.parametrize("path", [FUSED, EAGER, FAULTY], ids=lambda p: p.stem)
def test_every_line_round_trips_and_satisfies_the_json_schema(path: object) -> None:
    from pathlib import Path

    assert isinstance(path, Path)
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for line in path.read_bytes().splitlines(keepends=True):
        assert encode_record(decode_record(line)) == line
        validator.validate(json.loads(line))


def step_with(**changes: object) -> bytes:
    step = next(line for line in load(FUSED) if line["kind"] == "step")
    step["verify"] |= changes
    return json.dumps(step).encode()


def test_floats_that_are_not_finite_are_kept_and_never_null() -> None:
    record = decode_record(step_with(logsumexp=["NaN", "Infinity", "-Infinity", 1.5]))
    assert isinstance(record, Step)
    assert record.verify is not None
    values = record.verify.logsumexp
    assert values is not None
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1.5]
    assert b'"logsumexp":["NaN","Infinity","-Infinity",1.5]' in encode_record(record)


@pytest.mark.parametrize("value", ["7", 7.0, True, None, [7]])
def test_integers_are_strict(value: object) -> None:
    with pytest.raises(ValidationError, match="argmax"):
        decode_record(step_with(argmax=[value]))


def test_unknown_fields_of_a_newer_minor_version_survive() -> None:
    record = decode_record(step_with(invented={"a": [1, 2]}))
    assert b'"invented":{"a":[1,2]}' in encode_record(record)


@pytest.mark.parametrize("text", ["", "specscope.trace", "specscope.trace/1", "other/1.0", "specscope.trace/1.x"])
def test_a_version_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        SchemaVersion.parse(text)


def test_versions_order_and_print() -> None:
    assert SchemaVersion.parse(str(SCHEMA_VERSION)) == SCHEMA_VERSION
    assert SchemaVersion(1, 9) < SchemaVersion(2, 0)
