"""What a folder does to traces: how fast they are written there, and whether one survives the death of its writer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from specscope.schemas import (
    SCHEMA_VERSION,
    Device,
    Drafter,
    Manifest,
    Prefill,
    Sampling,
    Teacher,
    TreePolicy,
    TurnEnd,
    TurnStart,
)
from specscope.tracer.errors import SpecScopeError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter

WRITING_S = 0.3
PATIENCE_S = 60.0  # for the child to start and write
KILLED_AFTER = 200_000  # bytes
IDS_PER_RECORD = 1500  # about as large as the record of a step with 16 nodes


class WriteSpeed(NamedTuple):
    """How fast records were appended."""

    mb_per_s: float
    records_per_s: float


class Survival(NamedTuple):
    """What was left of a trace whose writer was killed."""

    survives: bool
    num_seen: int  # whole records in the file before the kill
    num_kept: int  # whole records that were read afterwards
    problem: str | None = None


class FolderReport(NamedTuple):
    """Of one folder."""

    speed: WriteSpeed
    survival: Survival


def probe_folder(folder: Path) -> FolderReport:
    """Writes and reads traces in a temporary folder inside ``folder``, and removes them.

    Raises:
        UsageError: where it is not a folder that can be written to.
    """
    try:
        with TemporaryDirectory(prefix="specscope-doctor-", dir=folder) as scratch:
            return FolderReport(_write_speed(Path(scratch)), _survival(Path(scratch) / "killed.jsonl"))
    except OSError as error:
        raise UsageError(f"cannot write traces to {folder}: {error.strerror or error}") from None


def write_turns(path: Path, seconds: float | None) -> int:
    """Writes turns that hold no steps into a new trace, for ``seconds`` or until the process is killed; returns how
    many records."""

    def fail(warning: str) -> None:
        raise UsageError(warning)

    writer = TraceWriter(path, overwrite=False, warn=fail)
    writer.write(_manifest())
    end = None if seconds is None else time.perf_counter() + seconds
    begin, finish = _turn()
    turn = 0
    while end is None or time.perf_counter() < end:
        writer.write(begin.model_copy(update={"seq": writer.next_seq, "turn": turn, "prompt_id": f"prompt-{turn}"}))
        writer.write(finish.model_copy(update={"seq": writer.next_seq, "turn": turn}))
        turn += 1
    writer.finish("complete")
    return 2 * turn


def _write_speed(folder: Path) -> WriteSpeed:
    path = folder / "speed.jsonl"
    start = time.perf_counter()
    num_records = write_turns(path, WRITING_S)
    seconds = time.perf_counter() - start
    return WriteSpeed(path.stat().st_size / 1e6 / seconds, num_records / seconds)


def _survival(path: Path) -> Survival:
    command = f"from pathlib import Path; from {__name__} import write_turns; write_turns(Path({str(path)!r}), None)"
    with subprocess.Popen(  # noqa: S603 - this interpreter, and a path that is quoted
        [sys.executable, "-c", command], stderr=subprocess.DEVNULL
    ) as child:
        deadline = time.monotonic() + PATIENCE_S
        while child.poll() is None and _size(path) < KILLED_AFTER and time.monotonic() < deadline:
            time.sleep(0.01)
        num_seen = path.read_bytes().count(b"\n") if path.exists() else 0
        died_alone = child.poll() is not None
        child.send_signal(signal.SIGKILL)
    if died_alone or num_seen == 0:
        return Survival(False, num_seen, 0, "the process that was to write ended by itself, or wrote nothing")
    return _read_again(path, num_seen)


def _read_again(path: Path, num_seen: int) -> Survival:
    try:
        with TraceReader(path) as reader:
            num_kept = sum(1 for _ in reader.numbered_lines())
            says_so = reader.truncated
    except SpecScopeError as error:
        return Survival(False, num_seen, 0, str(error))
    if num_kept < num_seen:
        return Survival(False, num_seen, num_kept, f"{num_seen - num_kept} whole records were lost")
    return Survival(says_so, num_seen, num_kept, None if says_so else "the file does not say that it was cut short")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Turn(NamedTuple):
    """The two records of a turn that holds no steps."""

    begin: TurnStart
    finish: TurnEnd


def _turn() -> _Turn:
    ids = list(range(IDS_PER_RECORD))
    prefill = Prefill(num_tokens=len(ids), pending_token=1)
    return _Turn(
        TurnStart(seq=0, turn=0, prompt_id="", prompt_turn=0, prompt_ids=ids, reused_length=0, prefill=prefill),
        TurnEnd(
            seq=0,
            turn=0,
            output_ids=[1],
            reason="length",
            num_steps=0,
            num_drafted=0,
            num_accepted=0,
            accepted_by_depth=[],
            duration_ns=0,
        ),
    )


def _manifest() -> Manifest:
    """Of a run that nobody made."""
    return Manifest(
        seq=0,
        schema=str(SCHEMA_VERSION),
        run_id="doctor",
        created="1970-01-01T00:00:00+00:00",
        engine="specscope doctor",
        versions={},
        mode="baseline",
        attention="eager",
        dtype="float32",
        device=Device(backend="cpu", name="none"),
        teacher=Teacher(name="none", architecture="none", vocab_size=IDS_PER_RECORD),
        drafter=Drafter(kind="none"),
        tree_policy=TreePolicy(kind="none", depth=0, top_k=0, budget=0),
        sampling=Sampling(rule="greedy"),
        level="decisions",
        capabilities=[],
    )
