"""Traces in memory, for processes that live long: the last steps are kept, and written when somebody asks for them.

Knows records, not what they mean, except that a failure, or an invariant that the engine found violated, is a reason to
write.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Literal

from specscope.schemas import AnyRecord, Failure, Manifest, Step, TurnEnd, TurnStart, decode_record, encode_record
from specscope.tracer.errors import UsageError
from specscope.tracer.files.writer import TraceWriter

EndReason = Literal["complete", "interrupted", "failed"]


class TraceRing:
    """The last steps of all runs that were opened in it, in whole turns.

    Example::

        ring = TraceRing("traces", num_steps=10_000)
        decode(prompt, trace=ring)      # nothing is written, unless the engine finds an invariant violated
        ring.dump()                     # now it is: one trace per run that is still held

    Args:
        folder: where traces are written; made when the first one is.
        num_steps: how many steps are kept. A turn is kept whole or not at all, and one that is running is kept.
        warn: told, in words, if a trace cannot be written.
    """

    def __init__(self, folder: Path | str, num_steps: int = 10_000, warn: Callable[[str], None] | None = None) -> None:
        if num_steps < 1:
            raise UsageError(f"got a ring of {num_steps} steps, wanted at least 1")
        self.folder = Path(folder)
        self.num_steps = num_steps
        self._warn = warn
        self._runs: list[RingRun] = []
        self._num_opened = 0

    def open(self, warn: Callable[[str], None]) -> RingRun:
        """Another run, of which nothing is written yet."""
        self._num_opened += 1
        run = RingRun(self, self._num_opened, self._warn or warn)
        self._runs.append(run)
        return run

    def dump(self) -> list[Path]:
        """Writes what is held, a trace per run, and names the files. What was written before is replaced by what is
        held now of the same run; no other file is.
        """
        return [path for run in list(self._runs) if (path := run.dump()) is not None]

    def dump_on(self, signal_number: signal.Signals) -> None:
        """From now on, this signal writes what is held: ``ring.dump_on(signal.SIGUSR1)``, then ``kill -USR1 PID``. For
        the main thread, as Python has it.
        """

        def write(number: int, frame: FrameType | None) -> None:
            self.dump()

        signal.signal(signal_number, write)

    def make_room(self) -> None:
        """Forgets the oldest turns that ended, and runs of which nothing is left."""
        excess = sum(run.num_steps for run in self._runs) - self.num_steps
        for run in self._runs:
            while excess > 0 and (dropped := run.drop_oldest()) is not None:
                excess -= dropped
        self._runs = [run for run in self._runs if run.is_held]


class RingRun:
    """One run's records in a ring; takes the place of a ``TraceWriter``."""

    broken = False

    def __init__(self, ring: TraceRing, number: int, warn: Callable[[str], None]) -> None:
        self.path = ring.folder / f"run-{number:05d}.jsonl"
        self._ring = ring
        self._warn = warn
        self._manifest: bytes | None = None
        self._turns: dict[int, list[bytes]] = {}  # encoded, which takes a tenth of the memory of records
        self._open: set[int] = set()
        self._alarmed: set[int] = set()  # turns to be written when they end
        self._num_written = 0
        self._reason: EndReason | None = None  # how the run ended
        self._is_ours = False  # whether the file is there, and this run's

    @property
    def next_seq(self) -> int:
        """The number that the next record must carry."""
        return self._num_written

    @property
    def num_steps(self) -> int:
        """That are held."""
        return sum(max(0, len(lines) - 2) for lines in self._turns.values())

    @property
    def is_held(self) -> bool:
        """Whether anything of it is, or may yet come."""
        return self._reason is None or bool(self._turns)

    def write(self, record: AnyRecord) -> None:
        """Keeps one record."""
        self._num_written += 1
        if isinstance(record, Manifest):
            self._manifest = encode_record(record)
            return
        turn = getattr(record, "turn", None)
        if turn is None:
            return
        self._turns.setdefault(turn, []).append(encode_record(record))
        if isinstance(record, TurnStart):
            self._open.add(turn)
        if is_alarming(record) and turn not in self._alarmed:  # once: a broken engine violates something in every step
            self._alarmed.add(turn)
            self.dump()
        if isinstance(record, TurnEnd):
            self._open.discard(turn)
            if turn in self._alarmed:
                self._alarmed.discard(turn)
                self.dump()
            self._ring.make_room()

    def drop_oldest(self) -> int | None:
        """Forgets the oldest turn that ended; how many steps it had, or None where there is none."""
        turn = next((turn for turn in self._turns if turn not in self._open), None)
        return None if turn is None else max(0, len(self._turns.pop(turn)) - 2)

    def dump(self) -> Path | None:
        """Writes what is held to ``path``; None where that is nothing, or it could not be written. Turns and records
        are numbered anew, so that the file is a whole trace. While a turn runs it has no ``run_end``: it is a truncated
        one.
        """
        if self._manifest is None or not self._turns:
            return None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            writer = TraceWriter(self.path, overwrite=self._is_ours, warn=self._warn)
        except (OSError, UsageError) as error:
            self._warn(f"the ring's trace {self.path} was not written: {error}")
            return None
        self._is_ours = True
        writer.write(decode_record(self._manifest))
        for number, lines in enumerate(self._turns.values()):
            for line in lines:
                renumbered = {"seq": writer.next_seq, "turn": number}
                writer.write(decode_record(line).model_copy(update=renumbered))
        if self._open:
            writer.leave()
        else:
            writer.finish(self._reason or "complete")
        return None if writer.broken else self.path

    def finish(self, reason: EndReason) -> None:
        """Takes note of how the run ended. Turns that were to be written and never ended are written now."""
        self._reason = reason
        self._open.clear()
        if self._alarmed:
            self._alarmed.clear()
            self.dump()
        self._ring.make_room()

    def check_whole(self) -> None:
        """Nothing can be lost in memory."""


def is_alarming(record: AnyRecord) -> bool:
    """Whether it is one for which a ring writes what it holds."""
    if isinstance(record, Failure):
        return True
    return isinstance(record, Step) and record.invariants is not None and bool(record.invariants.failed)
