"""The skim tells what a full parse would, or nothing: over real lines and any damage to them that leaves them JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy_run import Toy, toy_lines
from support.traces import FUSED

from specscope.schemas import Step, decode_record, parse_line
from specscope.tracer.errors import TraceError
from specscope.tracer.files import index as index_module
from specscope.tracer.files.index import TraceIndex
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.skim import equal_but_for_timing, skim_step


def compact(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


REAL = [line for line in FUSED.read_bytes().splitlines(keepends=True) if b'"kind":"step"' in line][:2]
STEPS = [*REAL, *(compact(line) for line in toy_lines(Toy("sampling", num_steps=2)) if line["kind"] == "step")]
#: What, put behind a comma or a brace, often leaves JSON behind, and another meaning.
PIECES = [
    b'"turn":5,', b'"kind":"failure",', b'"step":9,', b'"seq":7,', b'"accept":{"accepted_length":3},',
    b'"accept":null,',
    b'"invariants":{"failed":[1,2]},', b'"stop":null,', b'"timing":{"x":1},', b'"x":{"turn":3},',
    b'"x":",\\"turn\\":3",',
    b'"x":{"a":1,"accept":{"accepted_length":9},"stop":{"emitted":[],"kept":0}},', b'"\\u0074urn":8,', b'"x":NaN,',
    b'"x":{"a":1,"timing":{"x":1},"b":2},', b'"x":",",', b" ", b'"accepted_length":10000000000000000000000,',
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A step's line with a few pieces put in, or digits changed."""
    line = draw(st.sampled_from(STEPS))
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            places = [n + 1 for n in range(len(line)) if line[n : n + 1] in b",{"]
            at = draw(st.sampled_from(places))
            line = line[:at] + draw(st.sampled_from(PIECES)) + line[at:]
        else:
            at = draw(st.integers(0, len(line) - 2))
            line = line[:at] + draw(st.sampled_from([b"7", b"", b"-", b'"', b"}", b"null"])) + line[at + 1 :]
    return line


def directed() -> list[bytes]:
    """Each piece once before every field of a step's own, and at its end."""
    step = compact(json.loads(STEPS[0]))
    places = [step.index(b'"%s":' % name.encode()) for name in json.loads(step)]
    lines = [step[:at] + piece + step[at:] for at in places for piece in PIECES]
    return lines + [step[:-2] + b"," + piece.rstrip(b",") + b"}\n" for piece in PIECES]


def is_json(line: bytes) -> bool:
    try:
        parse_line(line)
    except ValueError:
        return False
    return b"\n" not in line[:-1]


def index_of(line: bytes) -> TraceIndex | str:
    """The index of a trace whose first turn's first step is ``line``, or the error."""
    builder = index_module._Builder(Path("x"), TraceIndex(stamp="x"), None)
    for turn in (0, 1, 3, 5, 8):
        builder.add(turn, compact({"kind": "turn_start", "turn": turn, "prompt_id": "p", "prompt_turn": turn}))
    try:
        builder.add(100, line)
    except TraceError as error:
        return str(error)
    return builder.index


@settings(max_examples=600, deadline=None, derandomize=True)
@given(damaged())
def test_the_index_is_the_same_with_and_without_the_skim(line: bytes) -> None:
    assert_same_index(line)


def test_the_index_is_the_same_where_keys_stand_twice_or_hide() -> None:
    for line in directed():
        assert_same_index(line)


def assert_same_index(line: bytes) -> None:
    if not is_json(line):
        return
    skimmed = index_of(line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "skim_step", lambda _: None)
        assert index_of(line) == skimmed


@settings(max_examples=400, deadline=None, derandomize=True)
@given(damaged())
def test_what_the_skim_tells_is_what_the_record_says(line: bytes) -> None:
    assert_skim_is_true(line)


def test_the_skim_is_right_where_keys_stand_twice_or_hide() -> None:
    for line in directed():
        assert_skim_is_true(line)


@pytest.mark.parametrize("section", ["commit", "stop", "invariants"])
def test_a_section_before_the_decisions_is_not_overlooked(section: str) -> None:
    step = json.loads(STEPS[0])
    step["invariants"]["failed"] = [{"id": "x", "witness": "y"}]
    head = {name: step.pop(name) for name in ("seq", "kind", "turn", "step", section)}
    assert_skim_is_true(compact(head | step))
    assert_same_index(compact(head | step))


def assert_skim_is_true(line: bytes) -> None:
    skimmed = skim_step(line)
    try:
        record = decode_record(line)
    except ValueError:
        return
    if skimmed is None:
        return
    assert isinstance(record, Step)
    assert record.accept is not None
    assert (skimmed.turn, skimmed.step) == (record.turn, record.step)
    assert skimmed.accepted_length == record.accept.accepted_length
    assert skimmed.num_failed == (0 if record.invariants is None else len(record.invariants.failed))
    assert skimmed.committed_before == (None if record.commit is None else record.commit.committed_before)
    emitted = (None, None) if record.stop is None else (record.stop.emitted, record.stop.kept)
    assert (skimmed.emitted, skimmed.kept) == emitted


def shifted(line: bytes) -> bytes:
    """The same step in another run: later, numbered otherwise, and slower."""
    step = json.loads(line)
    step["timing"] = {name: value if value is True else value + 1 for name, value in step["timing"].items()}
    return compact(step | {"seq": step["seq"] + 5, "turn": step["turn"] + 2})


@settings(max_examples=600, deadline=None, derandomize=True)
@given(damaged(), st.booleans())
def test_lines_that_are_told_to_be_equal_decode_alike(line: bytes, from_shifted: bool) -> None:
    for whole in STEPS:
        other = shifted(whole) if from_shifted else whole
        if not equal_but_for_timing(line, other):
            continue
        try:
            a, b = decode_record(line), decode_record(other)
        except ValueError:
            continue
        assert isinstance(a, Step)
        assert isinstance(b, Step)
        alike = {"seq": 0, "turn": 0, "timing": None}
        assert a.model_copy(update=alike) == b.model_copy(update=alike)


@pytest.mark.parametrize("line", STEPS)
def test_the_same_step_of_another_run_is_told_to_be_equal_and_one_that_differs_is_not(line: bytes) -> None:
    line = compact(json.loads(line))
    assert skim_step(line) is not None
    assert equal_but_for_timing(line, shifted(line))
    for old, new in ((b'"kept":', b'"kept":1'), (b'"step":', b'"step":1'), (b'"slot":0', b'"slot":1')):
        assert old in line
        assert not equal_but_for_timing(line, shifted(line).replace(old, new, 1))


@pytest.mark.parametrize(
    "field",
    [b'"x":{"a":1,"timing":{"y":%d}}', b'"x":{"a":1,"timing":{"y":%d},"b":2}', b'"x":[{"a":1,"timing":{"y":%d}}]'],
)
def test_timing_of_another_object_is_not_left_out(field: bytes) -> None:
    line = compact(json.loads(STEPS[0]))
    one, other = (line[:-2] + b"," + field % number + b"}\n" for number in (1, 2))
    assert is_json(one)
    assert equal_but_for_timing(one, shifted(STEPS[0])) is False
    assert not equal_but_for_timing(one, other)
    assert equal_but_for_timing(one, one)


def test_step_lines_are_the_steps(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(FUSED.read_bytes())
    with TraceReader(path) as reader:
        for turn in reader.turns:
            lines = list(reader.step_lines(turn))
            assert [line.record for line in lines] == list(reader.steps(turn))
            assert all(line.line.endswith(b"}\n") for line in lines)
