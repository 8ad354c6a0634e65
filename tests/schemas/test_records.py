"""Records on disk: round trips, strictness, non-finite floats, unknown fields, versions, and the committed JSON Schema.

``traces/trace-1.0.jsonl`` is frozen: two steps that the first release wrote, which every later one must read.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FAULTY, FUSED, ROOT, load

from specscope.schemas import (
    SCHEMA_VERSION,
    Manifest,
    SchemaVersion,
    Step,
    decode_record,
    encode_record,
    parse_line,
    trace_json_schema,
)
from specscope.tracer.oracle.check import check_trace

FROZEN = Path(__file__).with_name("traces") / "trace-1.0.jsonl"
SCHEMA_FILE = ROOT / "schemas" / "trace-v1.schema.json"


def test_the_committed_json_schema_is_the_models_own() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == trace_json_schema(), (
        "run: specscope schema > schemas/trace-v1.schema.json"
    )


@pytest.mark.parametrize("path", [FUSED, EAGER, FAULTY, FROZEN], ids=lambda p: p.stem)
def test_every_line_round_trips_and_satisfies_the_json_schema(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for line in path.read_bytes().splitlines(keepends=True):
        assert encode_record(decode_record(line)) == line
        validator.validate(json.loads(line))


TOYS = [
    Toy("sampling", draft="sampled", batch_size=2, fallback_at=1),
    Toy("typical", levels=False),
    Toy(kind="dynamic"),
]


@pytest.mark.parametrize("toy", TOYS, ids=["drawn", "lookup", "dynamic"])
def test_what_1_1_added_round_trips_and_satisfies_the_json_schema(toy: Toy) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for line in toy_lines(toy):
        again = json.loads(encode_record(decode_record(json.dumps(line).encode())))
        assert again == line
        validator.validate(line)


def test_the_first_releases_trace_is_read_and_judged_as_then(tmp_path: Path) -> None:
    copy = tmp_path / FROZEN.name  # the index is written beside it
    copy.write_bytes(FROZEN.read_bytes())
    report = check_trace(copy)
    assert report.manifest.schema_ == "specscope.trace/1.0"
    assert report.num_violations == 0
    skipped = {name for name, tally in report.invariants.items() if tally.skipped}
    since = {"draft.cache-kept", "commit.prefix-kept", "rows.free-when-taken", "rows.nothing-kept"}
    assert skipped == {"commit.strategy", "verify.feature-layers", "draft.features-are-committed"} | since


def test_absent_fields_of_1_1_mean_what_1_0_meant() -> None:
    manifest, _, step, *_ = (decode_record(line) for line in FROZEN.read_bytes().splitlines())
    assert isinstance(manifest, Manifest)
    assert isinstance(step, Step)
    assert (manifest.batch_size, manifest.cache_strategy, manifest.sampling.lossless) == (None, None, None)
    assert step.accept is not None
    assert step.accept.bonus_draw is None
    assert step.accept.visited
    assert all(visit.trials is None and visit.wanted is not None for visit in step.accept.visited)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("sampling", "rule"), "lucky"), (("batch_size",), 0), (("tree_policy", "choices"), [["0"]])],
)
def test_settings_outside_the_format_are_refused(path: tuple[str, ...], value: object) -> None:
    manifest = toy_lines(Toy())[0]
    *above, last = path
    target = manifest
    for name in above:
        target = target[name]
    target[last] = value
    with pytest.raises(ValidationError, match=path[0]):
        decode_record(json.dumps(manifest).encode())


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_a_bare_float_that_is_no_number_is_not_json(literal: str) -> None:
    line = step_with(logsumexp=[0.125]).replace(b"0.125", literal.encode())
    for reads in (decode_record, parse_line):
        with pytest.raises(ValueError, match="not JSON \\(a bare NaN or Infinity"):
            reads(line)


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
