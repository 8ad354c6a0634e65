"""Reading: any step alone, an index that is never trusted blindly, and errors with file, line and field."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support.traces import FUSED, first_step, load, store

from specscope.schemas import Step
from specscope.tracer.errors import TraceError, UsageError
from specscope.tracer.files.index import sidecar_path
from specscope.tracer.files.reader import TraceReader


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    path.write_bytes(FUSED.read_bytes())
    return path


def test_random_access_equals_reading_in_order(trace: Path) -> None:
    with TraceReader(trace) as reader:
        in_order = [n.record for n in reader.numbered_lines() if isinstance(n.record, Step)]
        by_place = [reader.step(turn, i) for turn in reversed(reader.turns) for i in reversed(range(len(turn.steps)))]
        assert by_place[::-1] == in_order
        lengths = [n for turn in reader.turns for n in turn.accepted_lengths]
        assert lengths == [step.accept.accepted_length for step in in_order if step.accept]
        assert not reader.truncated


def test_the_index_is_kept_and_rebuilt_when_the_file_changes(trace: Path) -> None:
    with TraceReader(trace) as reader:
        assert reader.turns
    sidecar = sidecar_path(trace)
    assert sidecar.exists()
    kept = sidecar.read_bytes()
    lines = load(trace)
    cut = store(lines[: len(lines) // 2], trace)
    with TraceReader(cut) as reader:
        assert reader.truncated
        assert reader.index.num_lines == len(lines) // 2
    assert sidecar.read_bytes() != kept


@pytest.mark.parametrize("content", [b"", b"junk", b"[]", b'{"format": "specscope.index/2", "turns": [{"x": 1}]}'])
def test_a_broken_index_is_ignored(trace: Path, content: bytes) -> None:
    sidecar_path(trace).write_bytes(content)
    with TraceReader(trace) as reader:
        assert not reader.truncated


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_needs_no_index(trace: Path) -> None:
    trace.parent.chmod(0o500)
    with TraceReader(trace) as reader:
        assert reader.turns


def test_a_torn_tail_is_left_out_and_counted(trace: Path) -> None:
    whole = trace.read_bytes()
    lines = whole.splitlines(keepends=True)
    trace.write_bytes(b"".join(lines[:6]) + lines[6][:40])
    with TraceReader(trace) as reader:
        assert [n.number for n in reader.numbered_lines()] == [1, 2, 3, 4, 5, 6]
        assert (reader.torn_bytes, reader.index.torn_bytes) == (40, 40)
        assert reader.truncated


def read_all(path: Path) -> None:
    with TraceReader(path) as reader:
        list(reader.numbered_lines())


MANIFEST = FUSED.read_bytes().splitlines()[0] if FUSED.exists() else b""


def of_version(schema: bytes) -> bytes:
    """The sample's manifest with another ``schema``, a JSON value."""
    return re.sub(rb'"specscope\.trace/[0-9.]+"', schema, MANIFEST) + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (bytes(range(256)) * 8, "line 1: got .*not JSON|torn first line"),
        (b"\x00\xff\n" * 9, "line 1: got a line that is not JSON"),
        (b'{"kind": "step"}\n', "line 1, field kind: got no manifest"),
        (b"[1, 2]\n", "line 1, field kind: got no manifest"),
        (
            of_version(b'"specscope.trace/2.0"'),
            "field schema: got specscope.trace/2.0.*upgrade specscope",
        ),
        (of_version(b'"specscope.trace/0.9"'), "field schema: got specscope.trace/0.9"),
        (of_version(b"17"), "field schema: got schema '17'"),
        (MANIFEST[:200], "torn first line"),
        (MANIFEST + b"\nhello\n", "line 2"),
        (MANIFEST + b'\n{"kind": "unheard-of", "seq": 1}\n', "line 2"),
        (MANIFEST.replace(b'"run_id":', b'"ran_id":') + b"\n", "line 1, field run_id: Field required"),
    ],
)
def test_what_is_no_trace_is_refused_by_line_and_field(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_wrong_field_is_named_with_its_line(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines)["tree"]["parents"][1] = "zero"
    path = store(lines, tmp_path / "bad.jsonl")
    with pytest.raises(TraceError, match=r"line 3, field tree\.parents\.1: Input should be a valid integer"):
        read_all(path)


@pytest.mark.parametrize("place", ["tensors", "inputs", "level"])
def test_several_positions_a_row_are_refused_in_words_that_say_why(tmp_path: Path, place: str) -> None:
    lines = load(FUSED)
    step = first_step(lines)
    found = {"tensors": step["tensors"], "inputs": step["draft"]["inputs"], "level": step["draft"]["levels"][0]}[place]
    found["positions"] = [[position] * 3 for position in found["positions"]]
    section = "tensors" if place == "tensors" else "draft"
    words = rf"line 3, field {section}\.(.+\.)?positions\.0: got several positions for a row.* leave out {section}$"
    with pytest.raises(TraceError, match=words):
        read_all(store(lines, tmp_path / "bad.jsonl"))


def test_the_index_names_the_line_that_is_not_json(trace: Path) -> None:
    lines = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join([*lines[:4], b"{broken\n", *lines[4:]]))
    with TraceReader(trace) as reader, pytest.raises(TraceError, match="line 5: not JSON"):
        _ = reader.turns


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.7", "1.999"])
def test_every_minor_version_of_this_major_one_is_read(tmp_path: Path, version: str) -> None:
    lines = load(FUSED)
    lines[0]["schema"] = f"specscope.trace/{version}"
    lines[0]["news"] = [1]
    with TraceReader(store(lines, tmp_path / "other.jsonl")) as reader:
        assert json.loads(reader.manifest.model_dump_json())["news"] == [1]
        assert reader.turns


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_a_bare_float_that_is_no_number_is_refused_alike_by_index_and_reader(tmp_path: Path, literal: str) -> None:
    path = tmp_path / "bare.jsonl"
    whole = FUSED.read_bytes()
    start = whole.index(b'"logsumexp":[') + len(b'"logsumexp":[')
    path.write_bytes(whole[:start] + literal.encode() + whole[whole.index(b",", start) :])
    wanted = (
        f'{path}, line 3: not JSON (a bare NaN or Infinity; write the string "NaN", "Infinity" or "-Infinity"); '
        "wanted one record per line"
    )
    with TraceReader(path) as reader:
        with pytest.raises(TraceError) as from_index:
            _ = reader.turns
        with pytest.raises(TraceError) as from_reader:
            list(reader.numbered_lines())
    assert str(from_index.value) == str(from_reader.value) == wanted


def test_a_first_line_with_a_bare_nan_is_refused_in_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    path.write_bytes(MANIFEST.replace(b'"rope_theta":10000.0', b'"rope_theta":NaN') + b"\n")
    with pytest.raises(TraceError, match=r"line that is not JSON \(a bare NaN or Infinity"):
        TraceReader(path)


def test_text_that_speaks_of_nan_is_no_number(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines)["texts"] = {"1": "NaN, -Infinity"}
    with TraceReader(store(lines, tmp_path / "text.jsonl")) as reader:
        assert reader.turns
        assert len(list(reader.numbered_lines())) == len(lines)


def test_an_integer_of_any_size_is_indexed(tmp_path: Path) -> None:
    lines = load(FUSED)
    first_step(lines)["accept"]["accepted_length"] = 10**30
    with TraceReader(store(lines, tmp_path / "large.jsonl")) as reader:
        assert reader.turns[0].accepted_lengths[0] == 10**30


def test_a_step_that_is_not_there_is_refused(trace: Path) -> None:
    with TraceReader(trace) as reader, pytest.raises(UsageError, match="got step 999, wanted 0"):
        reader.step(reader.turns[0], 999)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file"):
        TraceReader(tmp_path / "none.jsonl")
    with pytest.raises(TraceError, match="cannot be read"):
        TraceReader(tmp_path)
