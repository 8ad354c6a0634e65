"""Reads traces: validated records in order, or any step by its place. Tolerates a torn tail and says so."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError

from specscope.schemas import (
    AnyRecord,
    Failure,
    KnownVersions,
    Manifest,
    Record,
    RunEnd,
    SchemaVersion,
    Step,
    TurnEnd,
    TurnStart,
    decode_record,
    parse_line,
)
from specscope.tracer.errors import NoSuchStepError, TraceError
from specscope.tracer.files.index import MAX_LINE_BYTES, TraceIndex, TurnEntry, file_stamp, load_or_build, not_json
from specscope.tracer.files.plain import plain_file

if TYPE_CHECKING:
    from _typeshed import StrPath

#: An entry of a list that has one position for each row.
SINGLE_POSITION = re.compile(r"^(tensors|draft\..+)\.positions\.\d+$")

SomeRecord = TypeVar("SomeRecord", bound=Record)

#: Bytes of text of which a reader keeps the steps decoded, where it is told to: some 90 steps of 16 nodes, 4 MB.
KEPT_TEXT = 1 << 19


class NumberedRecord(NamedTuple):
    """A record and the line that it stands on."""

    number: int  # of the line, from 1
    record: AnyRecord
    line: bytes  # as it stands in the file, newline included


class StepNumber(NamedTuple):
    """Where a step stands."""

    turn: int  # number of its turn
    step: int  # counted in its turn, from 0


class StepLine:
    """A step as it lies in the file, decoded only where its record is asked for; ``skim`` tells of lines without.

    Raises:
        TraceError: by ``record``, where the line is no step.
    """

    def __init__(self, line: bytes, decode: Callable[[bytes], Step]) -> None:
        self.line = line  # newline included
        self._decode = decode

    @cached_property
    def record(self) -> Step:
        """The step, validated."""
        return self._decode(self.line)

    @property
    def is_decoded(self) -> bool:
        """Whether the record was asked for before, and is at hand."""
        return "record" in self.__dict__


class TraceReader:
    """One trace file, compressed ones included; ``-`` is standard input. A context manager.

    A trace of an older major version is upgraded record by record as it is read; ``original_version`` tells.

    Args:
        path: the file.
        known: the versions that can be read.

    Raises:
        TraceError: where the file cannot be read, is empty, is not a trace, or is of a newer major version, or of an
            older one from which no migration leads here.
    """

    def __init__(self, path: StrPath, known: KnownVersions = KnownVersions()) -> None:  # noqa: B008  (immutable)
        path = Path(path)
        self.path = path
        self._known = known
        #: The file with its plain text: a copy where ``path`` is compressed, ``-`` or a pipe.
        self.content = plain_file(path)
        try:
            self._file = self.content.open("rb")
        except FileNotFoundError:
            raise TraceError(path, "no such file") from None
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from None
        try:
            self.manifest = self._read_manifest()
        except BaseException:
            self._file.close()
            raise
        self._index: TraceIndex | None = None
        self._kept: dict[int, Step] = {}  # by offset
        self._room = 0  # bytes of text of which steps may still be kept
        self.torn_bytes = 0  # behind the last newline; known once all lines were read

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def index(self) -> TraceIndex:
        """Where everything lies; built at the first use."""
        if self._index is None:
            self._index = load_or_build(
                self.path,
                self._file,
                self._upgrade if self._is_older else None,
                keep=self.content == self.path,
            )
        return self._index

    def adopt_index(self, index: TraceIndex) -> None:
        """Uses an index that was built before, where the file has not changed since."""
        if file_stamp(self._file) == index.stamp:
            self._index = index

    def keep_first_steps(self) -> None:
        """Keeps the first steps as they are decoded, for one who reads them several times: most traces are short, and
        memory does not grow with the trace."""
        self._room = KEPT_TEXT

    @property
    def turns(self) -> list[TurnEntry]:
        """The turns, in the order in which they started."""
        return self.index.turns

    @property
    def truncated(self) -> bool:
        """Whether the run's end is missing."""
        return self.index.run_end is None

    def numbered_lines(self) -> Iterator[NumberedRecord]:
        """Every whole record in order, one at a time; ``torn_bytes`` then tells what is after the last newline."""
        number, offset = 0, 0
        while True:
            self._file.seek(offset)  # other methods may have moved it
            line = self._file.readline(MAX_LINE_BYTES + 1)
            if len(line) > MAX_LINE_BYTES:
                raise TraceError(self.path, f"a line of more than {MAX_LINE_BYTES} bytes", number + 1)
            if not line.endswith(b"\n"):
                self.torn_bytes = len(line)
                return
            number += 1
            record = self._decode(line, number)
            self._keep(offset, line, record)
            offset += len(line)
            yield NumberedRecord(number, record, line)

    def turn_start(self, turn: TurnEntry) -> TurnStart:
        """The record that begins ``turn``."""
        return self._at(turn.start, TurnStart)

    def turn_end(self, turn: TurnEntry) -> TurnEnd | None:
        """The record that ends ``turn``; None where it is missing."""
        return None if turn.end is None else self._at(turn.end, TurnEnd)

    def step(self, turn: TurnEntry, step: int) -> Step:
        """Step ``step`` of ``turn``, read alone.

        Raises:
            UsageError: where there is none of that number.
        """
        if not turn.steps:
            raise NoSuchStepError(f"got step {step}, but turn {turn.turn} has no steps")
        if not 0 <= step < len(turn.steps):
            raise NoSuchStepError(f"got step {step}, wanted 0..{len(turn.steps) - 1}, the steps of turn {turn.turn}")
        return self._at(turn.steps[step], Step)

    def steps(self, turn: TurnEntry) -> Iterator[Step]:
        """The steps of ``turn`` in order, one at a time."""
        return (self._at(offset, Step) for offset in turn.steps)

    def step_lines(self, turn: TurnEntry) -> Iterator[StepLine]:
        """The steps of ``turn`` in order, one at a time, as they lie in the file."""
        return (StepLine(self._line_at(offset), partial(self._as, Step, offset)) for offset in turn.steps)

    def step_on_line(self, number: int) -> StepNumber | None:
        """The step that the index has on line ``number``, whether or not its record can be read; None where the line is
        no step's."""
        self._file.seek(0)
        offset = sum(len(self._file.readline(MAX_LINE_BYTES + 1)) for _ in range(number - 1))
        for turn in self.turns:
            at = bisect_left(turn.steps, offset)
            if turn.steps[at : at + 1] == [offset]:
                return StepNumber(turn.turn, at)
        return None

    def run_end(self) -> RunEnd | None:
        """The record that ends the run; None where it is missing."""
        return None if self.index.run_end is None else self._at(self.index.run_end, RunEnd)

    def failures(self) -> list[Failure]:
        """The failure records."""
        return [self._at(offset, Failure) for offset in self.index.failures]

    def _at(self, offset: int, kind: type[SomeRecord]) -> SomeRecord:
        return self._as(kind, offset, self._line_at(offset))

    def _line_at(self, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.readline(MAX_LINE_BYTES + 1)

    def _as(self, kind: type[SomeRecord], offset: int, line: bytes) -> SomeRecord:
        record: AnyRecord = self._kept.get(offset) or self._decode(line, None)
        if not isinstance(record, kind):
            raise TraceError(self.path, f"got a {record.kind} record at byte {offset}, wanted {kind.__name__}")
        self._keep(offset, line, record)
        return record

    def _keep(self, offset: int, line: bytes, record: AnyRecord) -> None:
        if isinstance(record, Step) and len(line) <= self._room and offset not in self._kept:
            self._kept[offset] = record
            self._room -= len(line)

    def _decode(self, line: bytes, number: int | None) -> AnyRecord:
        try:
            return self._upgraded(line) if self._is_older else decode_record(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "json_invalid":
                reason = first.get("ctx", {}).get("error", first["msg"])
                raise not_json(self.path, f"not JSON ({reason})", number) from None
            # The first part of the place is the record's kind, which the union put there.
            field = ".".join(str(part) for part in first["loc"][1:]) or None
            message = _inexpressible(first["input"], field) or f"{first['msg']} ({error.error_count()} in all)"
            raise TraceError(self.path, message, number, field) from None
        except ValueError as error:
            raise not_json(self.path, error, number) from None

    def _read_manifest(self) -> Manifest:
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            raise TraceError(self.path, "the file is empty; wanted a trace, whose first line is its manifest")
        try:
            raw = parse_line(line)
        except ValueError as error:
            what = "a torn first line" if not line.endswith(b"\n") else f"a line that is {error}"
            raise TraceError(self.path, f"got {what}, wanted a trace, whose first line is its manifest", 1) from None
        if not isinstance(raw, dict) or raw.get("kind") != "manifest":
            raise TraceError(self.path, "got no manifest on the first line; is this a trace?", 1, "kind")
        self.original_version = self._readable_version(raw.get("schema"))
        record = self._decode(line, 1)
        assert isinstance(record, Manifest)
        return record

    def _readable_version(self, schema: object) -> SchemaVersion:
        try:
            version = SchemaVersion.parse(schema if isinstance(schema, str) else repr(schema))
            self._known.steps_from(version)
        except ValueError as error:
            raise TraceError(self.path, str(error), 1, "schema") from None
        return version

    @property
    def _is_older(self) -> bool:
        """Whether records are to be upgraded before they are read."""
        return self.original_version.major < self._known.version.major

    def _upgrade(self, raw: dict[str, Any]) -> dict[str, Any]:
        return self._known.upgrade(raw, self.original_version)

    def _upgraded(self, line: bytes) -> AnyRecord:
        raw = parse_line(line)
        if not isinstance(raw, dict):
            raise ValueError("no record")
        try:
            upgraded = self._upgrade(raw)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"a record that cannot be upgraded ({type(error).__name__}: {error})") from None
        return decode_record(json.dumps(upgraded).encode())


def _inexpressible(value: Any, field: str | None) -> str | None:
    """What to do about a list of positions where one belongs, as rotations of several axes have."""
    if not isinstance(value, list) or field is None or SINGLE_POSITION.search(field) is None:
        return None
    return (
        "got several positions for a row, wanted one integer: the format has no place yet for rotations of several "
        f"axes (m-rope); write the one that counts text, or leave out {field.partition('.')[0]}"
    )
