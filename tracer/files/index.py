"""Where each record of a trace lies: built by one skim over the file, kept beside it, rebuilt whenever it disagrees.

Records of different turns may interleave, for a batch decodes them side by side. The sidecar is a convenience: it is
never required, and failing to write it is no error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import xxhash
from pydantic import TypeAdapter

from specscope.schemas import parse_line
from specscope.tracer.errors import TraceError
from specscope.tracer.files.skim import skim_step
from specscope.tracer.files.whole import written_whole

INDEX_FORMAT = "specscope.index/2"
STAMP_BYTES = 1 << 16
MAX_LINE_BYTES = 64 << 20


@dataclass(kw_only=True)
class TurnEntry:
    """Where one turn's records begin, as byte offsets."""

    turn: int
    prompt_id: str
    prompt_turn: int
    start: int
    end: int | None = None  # offset of turn_end; None where it is missing
    steps: list[int] = field(default_factory=list)
    accepted_lengths: list[int] = field(default_factory=list)
    failed_invariants: list[int] = field(default_factory=list)  # those the engine itself recorded, a step


@dataclass(kw_only=True)
class TraceIndex:
    """The places of all records of one file."""

    stamp: str  # what the file looked like when this was built
    num_lines: int = 0
    torn_bytes: int = 0  # behind the last newline
    run_end: int | None = None  # offset; None where the run was cut off
    turns: list[TurnEntry] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)


_INDEX = TypeAdapter(TraceIndex)


def sidecar_path(path: Path) -> Path:
    """Where the index of ``path`` is kept."""
    return path.with_name(path.name + ".idx")


def file_stamp(file: BinaryIO) -> str:
    """Changes whenever the file does: size, modification time, and its first and last bytes."""
    stat = os.fstat(file.fileno())
    digest = xxhash.xxh3_128(f"{stat.st_size}.{stat.st_mtime_ns}".encode())
    file.seek(0)
    digest.update(file.read(STAMP_BYTES))
    file.seek(max(0, stat.st_size - STAMP_BYTES))
    digest.update(file.read(STAMP_BYTES))
    return digest.hexdigest()


def has_index(path: Path) -> bool:
    """Whether the index of the trace at ``path`` lies beside it and fits it, as far as its first bytes tell."""
    sidecar = sidecar_path(path)
    try:
        if not (path.is_file() and sidecar.is_file()):
            return False
        with path.open("rb") as file, sidecar.open("rb") as kept:
            wanted = orjson.dumps({"format": INDEX_FORMAT, "stamp": file_stamp(file)})[:-1]
            return kept.read(len(wanted)) == wanted
    except OSError:
        return False


#: From a record as it lies in the file to this major version's; None where it is of this one.
Upgrade = Callable[[dict[str, Any]], dict[str, Any]] | None


def load_or_build(path: Path, file: BinaryIO, upgrade: Upgrade = None, *, keep: bool = True) -> TraceIndex:
    """The index of ``path``, whose plain text is ``file``; from its sidecar where that still fits. Without ``keep``
    there is none: the places of a compressed file's text are not those of its bytes.

    Raises:
        TraceError: naming the line that is not a record.
    """
    stamp = file_stamp(file)
    size = os.fstat(file.fileno()).st_size
    index = _load(sidecar_path(path), size) if keep else None
    if index is not None and index.stamp == stamp and _fits(index, size):
        return index
    index = _build(path, file, stamp, upgrade)
    if keep:
        with contextlib.suppress(OSError, TypeError):  # orjson has no integers of more than 64 bits
            _save(index, sidecar_path(path))
    return index


def _load(path: Path, trace_size: int) -> TraceIndex | None:
    """What stands at ``path``, where that is an index and not larger than one of such a trace can be."""
    try:
        if not path.is_file() or path.stat().st_size > trace_size + STAMP_BYTES:
            return None
        raw = orjson.loads(path.read_bytes())
        if raw.pop("format") != INDEX_FORMAT:
            return None
        return _INDEX.validate_python(raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _fits(index: TraceIndex, size: int) -> bool:
    """Whether every place lies in the file. A sidecar comes from the sender of the trace."""
    ends = [index.run_end, *(turn.end for turn in index.turns)]
    places = [*index.failures, *(place for place in ends if place is not None)]
    for turn in index.turns:
        if not len(turn.steps) == len(turn.accepted_lengths) == len(turn.failed_invariants):
            return False
        places += [turn.start, min(turn.steps, default=0), max(turn.steps, default=0)]
    return all(0 <= place < size for place in places)


def _save(index: TraceIndex, path: Path) -> None:
    """Writes the index whole or not at all."""
    with written_whole(path) as partial:
        partial.write_bytes(orjson.dumps({"format": INDEX_FORMAT, **asdict(index)}))


def not_json(path: Path, problem: object, line: int | None) -> TraceError:
    """The one error for a line that is not JSON."""
    return TraceError(path, f"{problem}; wanted one record per line", line)


def _build(path: Path, file: BinaryIO, stamp: str, upgrade: Upgrade) -> TraceIndex:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise TraceError(path, "the file is empty; wanted a trace, whose first line is its manifest")
    builder = _Builder(path, TraceIndex(stamp=stamp), upgrade)
    offset = 0
    file.seek(0)
    while line := file.readline(MAX_LINE_BYTES + 1):  # mapping the file would count all of it as memory
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE_BYTES:
                number = builder.index.num_lines + 1
                raise TraceError(path, f"a line of more than {MAX_LINE_BYTES} bytes", number)
            builder.index.torn_bytes = len(line)
            break
        builder.add(offset, line)
        offset += len(line)
    return builder.index


class _Builder:
    """Takes in a trace line by line."""

    def __init__(self, path: Path, index: TraceIndex, upgrade: Upgrade) -> None:
        self.index = index
        self._upgrade = upgrade
        self._path = path
        self._open: dict[int, TurnEntry] = {}  # turns without their end, by number
        self._last_turn = -1

    def add(self, offset: int, line: bytes) -> None:
        """Notes where one record lies."""
        number = self.index.num_lines + 1
        skimmed = skim_step(line) if self._upgrade is None else None
        record = {} if skimmed is not None else self._parsed(line, number)
        kind = "step" if skimmed is not None else record["kind"]
        try:
            if skimmed is not None:
                self._note_step(skimmed.turn, skimmed.accepted_length, skimmed.num_failed, offset)
            else:
                self._note(kind, record, offset)
        except TraceError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            name = str(error.args[0]) if isinstance(error, KeyError) else None
            raise TraceError(self._path, f"a {kind} record that does not fit here ({error})", number, name) from None
        self.index.num_lines = number

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = parse_line(line)
            if self._upgrade is not None and isinstance(record, dict):
                record = self._upgrade(record)
        except ValueError as error:
            raise not_json(self._path, error, number) from None
        except (LookupError, TypeError, AttributeError) as error:
            raise TraceError(self._path, f"a record that cannot be upgraded ({error})", number) from None
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            raise TraceError(self._path, "got no record; wanted an object with 'kind'", number, "kind")
        return record

    def _note_step(self, turn: int, accepted_length: int, num_failed: int, offset: int) -> None:
        entry = self._running(turn)
        entry.steps.append(offset)
        entry.accepted_lengths.append(accepted_length)
        entry.failed_invariants.append(num_failed)

    def _note(self, kind: str, record: dict[str, Any], offset: int) -> None:
        index = self.index
        if kind == "turn_start":
            turn = TurnEntry(
                turn=record["turn"], prompt_id=record["prompt_id"], prompt_turn=record["prompt_turn"], start=offset
            )
            index.turns.append(turn)
            self._open[turn.turn] = turn
            self._last_turn = max(self._last_turn, turn.turn)
        elif kind == "turn_end":
            self._running(record["turn"]).end = offset
            del self._open[record["turn"]]
        elif kind == "step":
            lengths = record.get("lengths") or {}
            accepted_length = int((record.get("accept") or {}).get("accepted_length", lengths.get("accepted", 0)))
            num_failed = len((record.get("invariants") or {}).get("failed", ()))
            self._note_step(record["turn"], accepted_length, num_failed, offset)
        elif kind == "failure":
            index.failures.append(offset)
        elif kind == "run_end":
            index.run_end = offset
        elif kind != "manifest":
            number = index.num_lines + 1
            problem = f"got a record of kind {kind[:40]!r}, which this version does not know"
            raise TraceError(self._path, problem, number, "kind")

    def _running(self, turn: int) -> TurnEntry:
        entry = self._open.get(turn)
        if entry is None:
            raise LookupError(f"turn {turn} has {'ended already' if turn <= self._last_turn else 'not started'}")
        return entry
