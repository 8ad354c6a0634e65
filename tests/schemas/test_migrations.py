"""Older major versions: upgraded one step at a time, or refused with the step that is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.traces import EAGER, Lines, load, store

from specscope.schemas import MIGRATIONS, SCHEMA_VERSION, KnownVersions, Manifest, SchemaVersion
from specscope.tracer.errors import TraceError
from specscope.tracer.files.reader import TraceReader

#: A made-up past: two majors ago a step's path was called route, and one ago it still counted the root.
NEW = SCHEMA_VERSION.major


def add_root(record: dict[str, Any]) -> dict[str, Any]:
    """From the first to the second: a new name, and the root in front."""
    if record["kind"] == "step":
        accept = dict(record["accept"])
        record["accept"] = accept | {"path": [0, *accept.pop("route")]}
    return record


def drop_root(record: dict[str, Any]) -> dict[str, Any]:
    """From the second to this one: the root is left out."""
    if record["kind"] == "step":
        record["accept"] = record["accept"] | {"path": record["accept"]["path"][1:]}
    return record


def as_first(lines: Lines, major: int) -> Lines:
    """A real trace as that past would have written it."""
    lines[0]["schema"] = f"specscope.trace/{major}.7"
    for line in lines:
        if line["kind"] == "step":
            line["accept"]["route"] = line["accept"].pop("path")
    return lines


KNOWN = KnownVersions(SchemaVersion(3, 4), {1: add_root, 2: drop_root})


def test_a_trace_of_two_majors_ago_reads_as_if_it_were_written_today(tmp_path: Path) -> None:
    old = store(as_first(load(EAGER), 1), tmp_path / "old.jsonl")
    with TraceReader(old, KNOWN) as reader, TraceReader(EAGER) as today:
        assert reader.original_version == SchemaVersion(1, 7)
        assert today.original_version == SCHEMA_VERSION or today.original_version.major == NEW
        for turn, other in zip(reader.turns, today.turns, strict=True):
            assert (turn.prompt_id, turn.accepted_lengths) == (other.prompt_id, other.accepted_lengths)
            assert list(reader.steps(turn)) == list(today.steps(other))
            assert reader.turn_end(turn) == today.turn_end(other)
        old_lines, new_lines = list(reader.numbered_lines()), list(today.numbered_lines())
    assert [line.record for line in old_lines[1:-1]] == [line.record for line in new_lines[1:-1]]
    assert b"".join(line.line for line in old_lines) == old.read_bytes(), "digests are over what was written"
    manifest = old_lines[0].record
    assert isinstance(manifest, Manifest)
    assert (manifest.schema_, manifest.original_schema) == ("specscope.trace/3.0", "specscope.trace/1.7")


def test_steps_are_taken_one_by_one_and_only_those_that_are_needed() -> None:
    taken: list[int] = []

    def step(major: int) -> Any:
        def migrate(record: dict[str, Any]) -> dict[str, Any]:
            taken.append(major)
            return record

        return migrate

    known = KnownVersions(SchemaVersion(5, 0), {major: step(major) for major in range(1, 5)})
    record = {"kind": "manifest", "schema": "specscope.trace/3.2"}
    upgraded = known.upgrade(record, SchemaVersion(3, 2))
    assert taken == [3, 4]
    assert upgraded == {
        "kind": "manifest",
        "schema": "specscope.trace/5.0",
        "original_schema": "specscope.trace/3.2",
    }
    assert record == {"kind": "manifest", "schema": "specscope.trace/3.2"}
    assert known.upgrade(record, SchemaVersion(5, 0)) is record


@pytest.mark.parametrize(
    ("known", "written", "says"),
    [
        (KnownVersions(SchemaVersion(3, 0), {1: add_root}), 1, "no migration from major 2 to 3"),
        (KnownVersions(SchemaVersion(3, 0), {2: drop_root}), 1, "no migration from major 1 to 2"),
        (KnownVersions(SchemaVersion(3, 0), {}), 4, "reads up to specscope.trace/3.x: upgrade specscope"),
        (KnownVersions(), 0, "no migration from major 0 to 1"),
    ],
)
def test_a_gap_and_a_newer_major_are_refused(tmp_path: Path, known: KnownVersions, written: int, says: str) -> None:
    lines = load(EAGER)
    lines[0]["schema"] = f"specscope.trace/{written}.1"
    path = store(lines, tmp_path / "trace.jsonl")
    with pytest.raises(TraceError, match=says):
        TraceReader(path, known)


def test_a_record_that_cannot_be_upgraded_is_named_by_its_line(tmp_path: Path) -> None:
    lines = as_first(load(EAGER), 1)
    number = next(number for number, line in enumerate(lines, start=1) if line["kind"] == "step")
    del lines[number - 1]["accept"]
    path = store(lines, tmp_path / "trace.jsonl")
    with TraceReader(path, KNOWN) as reader:
        with pytest.raises(TraceError, match=f"line {number}: .*cannot be upgraded"):
            list(reader.numbered_lines())
        with pytest.raises(TraceError, match=f"line {number}: .*cannot be upgraded"):
            _ = reader.turns


def test_no_migration_is_registered_for_a_major_that_was_never_released() -> None:
    assert set(MIGRATIONS) == set(range(1, SCHEMA_VERSION.major))
    assert json.dumps(sorted(MIGRATIONS)) == "[]"
