"""Frozen traces, one of each released version and one of the future: every later release reads and judges them.

They are never changed. ``trace-1.N.jsonl`` was recorded by the release whose format was 1.N, and
``trace-1.99-future.jsonl`` is the newest of them with fields that no release knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from support.called import specscope
from support.toy_run import Toy, toy_lines
from support.traces import load

from specscope.schemas import SCHEMA_VERSION, AnyRecord, SchemaVersion, decode_record, encode_record, trace_json_schema
from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace

FOLDER = Path(__file__).with_name("traces")
RELEASED = {SchemaVersion(1, minor): FOLDER / f"trace-1.{minor}.jsonl" for minor in range(SCHEMA_VERSION.minor + 1)}
FUTURE = FOLDER / "trace-1.99-future.jsonl"
ALL = [*RELEASED.values(), FUTURE]


@pytest.fixture
def copy(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the trace: indices are written beside it."""
    path: Path = tmp_path / request.param.name
    path.write_bytes(request.param.read_bytes())
    return path


def test_there_is_one_of_every_released_version() -> None:
    for version, path in RELEASED.items():
        assert load(path)[0]["schema"] == str(version)
        assert path.stat().st_size < 40_000
    assert load(FUTURE)[0]["schema"] == f"specscope.trace/{SCHEMA_VERSION.major}.99"


@pytest.mark.parametrize("copy", ALL, ids=lambda p: p.stem, indirect=True)
def test_it_is_read_judged_clean_and_equal_to_itself(copy: Path) -> None:
    report = check_trace(copy)
    assert (report.num_violations, report.truncated, report.torn_bytes) == (0, False, 0)
    assert report.num_steps > 0
    verdict = diff_traces(copy, copy)
    assert (verdict.verdict, verdict.exit_code, verdict.roots) == ("equal", 0, [])


@pytest.mark.parametrize("copy", [RELEASED[SchemaVersion(1, 0)], FUTURE], ids=lambda p: p.stem, indirect=True)
def test_the_commands_take_it(copy: Path) -> None:
    outcomes = [specscope("check", copy), specscope("diff", copy, copy), specscope("show", copy, "--step", "0")]
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes
    assert "bonus" in outcomes[2].out


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_every_line_comes_back_byte_for_byte_and_satisfies_the_json_schema(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(trace_json_schema())
    for line in path.read_bytes().splitlines(keepends=True):
        validator.validate(json.loads(line))
        assert encode_record(decode_record(line)) == line


def test_the_futures_own_fields_are_kept() -> None:
    raw = FUTURE.read_bytes()
    known = raw.count(b'"invented')
    again = b"".join(encode_record(decode_record(line)) for line in raw.splitlines(keepends=True))
    assert again.count(b'"invented') == known > 20


def test_the_next_major_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "next.jsonl"
    now, following = f"specscope.trace/{SCHEMA_VERSION.major}.99", f"specscope.trace/{SCHEMA_VERSION.major + 1}.0"
    path.write_text(FUTURE.read_text().replace(now, following, 1))
    for command in (("check", path), ("show", path), ("diff", path, path)):
        done = specscope(*command)
        assert done.code == 2
        assert f"got {following}" in done.err
        assert "upgrade specscope" in done.err


LINES = [
    *(line for path in RELEASED.values() for line in load(path)),
    *toy_lines(Toy("sampling", draft="sampled", batch_size=2, fallback_at=1)),
    *toy_lines(Toy("typical", levels=False)),
]
#: Any JSON value that the format allows in a field: null is never written.
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def sections(value: Any, model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """Every object in a line that is a section of the format, the line first."""
    yield value
    for name, field in model.model_fields.items():
        inner = next(models_in(field.annotation), None)
        entry = value.get(field.alias or name)
        if inner is not None and entry is not None:
            for item in entry if isinstance(entry, list) else [entry]:
                yield from sections(item, inner)


MODELS = {str(kind.model_fields["kind"].default): kind for kind in get_args(get_args(AnyRecord)[0])}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_unknown_fields_at_every_level_survive(data: st.DataObject) -> None:
    line = json.loads(json.dumps(data.draw(st.sampled_from(LINES))))
    model = MODELS[line["kind"]]
    for section in sections(line, model):
        section[f"x{data.draw(st.text(max_size=4))}"] = data.draw(VALUES)
    assert json.loads(encode_record(decode_record(json.dumps(line).encode()))) == line
