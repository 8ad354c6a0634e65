"""Runs the steps of a trace again, each from equal state, and writes what they come to now as a second trace.

Every turn's recorded prompt is taken in, and each recorded step runs in the configuration that is wanted, forced to the
recorded tree and outcome (``forcing``). Step by step the two traces can be compared, and a difference in one step is
not carried into the next: only what the caches hold is the replay's own.

Turns keep their numbers, prompts, seeds and what they reuse. Those of a batch are run alone, one after another.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from specscope.engine.drafters.base import Drafter
from specscope.engine.lab.faults import FaultTarget
from specscope.engine.lab.rerun.forcing import ForcedSession
from specscope.engine.lab.rerun.recorded_run import (
    Overrides,
    check_readable,
    fault_target,
    load_recorded,
    recorded_decoding,
    rules_of,
)
from specscope.engine.load.models import Models
from specscope.engine.loop.phases import Decoding, EndReason
from specscope.engine.record.manifest import RunFacts, build_manifest, settings_of
from specscope.engine.record.recorder import TraceRecorder, TurnLabel, TurnRecorder
from specscope.engine.record.side_files import SideFiles, check_side_folder
from specscope.engine.record.target import RUN_ERRORS, ending
from specscope.engine.settings import ModelChoice
from specscope.schemas import Manifest, TurnEnd, TurnStart
from specscope.tracer.errors import EngineError, SpecScopeError, TraceLostError, UsageError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter, check_writable
from specscope.tracer.naming.failures import in_phase
from specscope.tracer.naming.places import StepPlace
from specscope.tracer.naming.text import counted


@dataclass(frozen=True, kw_only=True)
class ReplayRequest:
    """What is to be replayed, and into what."""

    trace: Path
    out: Path
    overrides: Overrides
    turn: int | None = None  # None: all of them
    with_fault: bool = False  # put the recorded fault in again
    overwrite: bool = False


@dataclass(kw_only=True)
class ReplayReport:
    """What became of the steps; filled while they run."""

    num_turns: int = 0
    num_steps: int = 0
    num_others: int = 0  # steps that decided something else than was recorded
    num_trees: int = 0  # recorded trees that were put in
    first_other: StepPlace | None = None
    notes: list[str] = field(default_factory=list)
    lost: TraceLostError | None = None  # where the new trace could not be written to its end


Advance = Callable[[str], None]


class Replay:
    """A replay that is ready to run: everything that can be refused has been.

    Raises:
        UsageError: where the trace cannot be replayed, or the new one not be written.
        IncomparableError: where the models are not those of the run.
    """

    def __init__(self, request: ReplayRequest, warn: Callable[[str], None]) -> None:
        if request.trace.exists() and request.out.exists() and request.trace.samefile(request.out):
            raise UsageError(f"{request.out} is the trace that is to be replayed: give another file with --out")
        check_writable(request.out, overwrite=request.overwrite)
        self._request, self._warn = request, warn
        with TraceReader(request.trace) as reader:
            self._source = reader.manifest
            check_readable(request.trace, self._source)
            self._turns = _chosen(reader, request.turn)
            self.report = ReplayReport(notes=_coverage(reader))
        if self._source.level == "tensors":
            check_side_folder(request.out, overwrite=request.overwrite)
        wanted = request.overrides.settings_of(self._source)
        if self._source.fault is not None and not request.with_fault:
            self.report.notes.append(f"fault {self._source.fault} of the run was left out")
            wanted = wanted.model_copy(update={"fault": None})
        models, notes, choice = load_recorded(self._source, request.overrides)
        target = fault_target(wanted, models)
        self._decoding = recorded_decoding(wanted, models.teacher, target.phases)
        self._manifest = replay_manifest(
            self._source, wanted, choice=choice, models=target.models, decoding=self._decoding
        )
        self.report.notes += notes
        self._models = target.models
        self._lanes = _Lanes(target, self._decoding, wanted.fault is not None, self._turns)
        self._running: ForcedSession | None = None

    @property
    def num_steps(self) -> int:
        """Steps that will be run, those of earlier turns that a turn goes back to included."""
        return sum(len(entry.steps) for entry in self._turns)

    @property
    def manifest(self) -> Manifest:
        """Line 1 of the new trace."""
        return self._manifest

    def run(self, advance: Advance) -> ReplayReport:
        """Runs every step and writes the new trace, which ends properly whatever happens; ``advance`` is called after
        each step.

        Raises:
            UsageError: where a record cannot be followed.
            EngineError: where the engine fails.
        """
        writer = TraceWriter(self._request.out, overwrite=self._request.overwrite, warn=self._warn)
        try:
            with ending(self, writer), TraceReader(self._request.trace) as reader:
                side = SideFiles(self._request.out, writer, overwrite=True) if self._source.level == "tensors" else None
                recorder = TraceRecorder(writer, self._manifest, None, side)
                for entry in self._turns:
                    is_written = self._request.turn in (None, entry.turn)
                    self._replay_turn(reader, entry, recorder if is_written else None, advance)
        except SpecScopeError:
            raise
        except RUN_ERRORS as error:
            raise EngineError(f"the replay failed: {type(error).__name__}: {error}") from error
        try:
            writer.check_whole()
        except TraceLostError as error:
            self.report.lost = error
        return self.report

    def abandon(self, reason: EndReason) -> None:
        """Ends the turn that is running."""
        if self._running is not None:
            self._running.session.abandon(reason)

    def fail(self, error: Exception) -> None:
        """Tells the new trace of the failure."""
        if self._running is not None:
            self._running.session.fail(error)

    def _replay_turn(
        self, reader: TraceReader, entry: TurnEntry, recorder: TraceRecorder | None, advance: Advance
    ) -> None:
        start, end = reader.turn_start(entry), reader.turn_end(entry)
        lane = self._running = self._lanes.of(entry)
        observer = recorder.turn(_label(start)) if recorder is not None else None
        begin_recorded(lane, self._source, start=start, end=end, has_steps=bool(entry.steps), recorder=observer)
        for step in reader.steps(entry):
            outcome = lane.step(step)
            if observer is not None:
                self._count(StepPlace(entry.turn, step.step), outcome.as_recorded, outcome.forced.tree)
            advance(f"turn {entry.turn}")
        lane.end("interrupted" if end is None or end.reason == "unknown" else end.reason)
        if observer is not None:
            self.report.num_turns += 1

    def _count(self, place: StepPlace, as_recorded: bool, tree_replaced: bool) -> None:
        report = self.report
        report.num_steps += 1
        report.num_trees += tree_replaced
        if not as_recorded:
            report.num_others += 1
            report.first_other = report.first_other or place


def begin_recorded(
    lane: ForcedSession,
    manifest: Manifest,
    start: TurnStart,
    end: TurnEnd | None,
    has_steps: bool,
    recorder: TurnRecorder | None,
    row: int = 0,
) -> None:
    """Takes in the prompt of a recorded turn of the run of ``manifest`` in ``row``."""
    at_once = None if end is None or has_steps or end.reason == "unknown" else end.reason
    lane.begin(start, rules_of(manifest), recorder=recorder, end=at_once, row=row)


def replay_manifest(
    source: Manifest, wanted: Manifest, choice: ModelChoice, models: Models, decoding: Decoding
) -> Manifest:
    """Line 1 of the replay of ``source`` in the configuration of ``wanted``."""
    settings = replace(
        settings_of(source),
        choice=choice,
        batch_size=1,
        arrivals_clock="steps",  # nobody waits for a row
        cache_strategy=decoding.cache_strategy,
        cache="dense" if decoding.block_size is None else "paged",
        block_size=decoding.block_size,
        fault=wanted.fault,
    )
    facts = RunFacts(settings, source.level, rules_of(source), decoding.processors)
    manifest = build_manifest(uuid.uuid4().hex, facts, models.teacher, models.drafter)
    # What the rule was is the run's own word; it may be older than what this version says of a rule.
    return manifest.model_copy(update={"replay_of": source.run_id, "sampling": source.sampling})


def _label(start: TurnStart) -> TurnLabel:
    return TurnLabel(start.turn, start.prompt_id, start.prompt_turn, start.prompt_text)


def _chosen(reader: TraceReader, turn: int | None) -> list[TurnEntry]:
    """The turns to run, in order: all, or one with those of its conversation before it."""
    turns = reader.turns
    if not turns:
        raise UsageError(f"{reader.path} records no turn: there is nothing to replay")
    if turn is None:
        return turns
    wanted = next((entry for entry in turns if entry.turn == turn), None)
    if wanted is None:
        raise UsageError(f"got turn {turn}, wanted one of {reader.path}: 0..{turns[-1].turn}")
    return [*earlier_turns(turns, wanted), wanted]


def earlier_turns(turns: list[TurnEntry], wanted: TurnEntry) -> list[TurnEntry]:
    """The turns of the conversation of ``wanted`` before it, whose caches it continues with."""
    return [entry for entry in turns if entry.prompt_id == wanted.prompt_id and entry.prompt_turn < wanted.prompt_turn]


def _coverage(reader: TraceReader) -> list[str]:
    """What of the run is not there to be replayed."""
    steps = sum(len(entry.steps) for entry in reader.turns)
    notes = []
    if reader.truncated:
        notes.append(f"the trace is truncated: it has no run_end; its {steps} whole steps are replayed")
    if reader.index.torn_bytes:
        notes.append(f"the trace ends in a torn record of {counted(reader.index.torn_bytes, 'byte')}")
    notes += [f"turn {f.turn} failed{in_phase(f, ' ')}; what it had done is replayed" for f in reader.failures()]
    return notes


class _Lanes:
    """A session for each conversation that is under way; more than one only where a batch decoded several at once."""

    def __init__(self, target: FaultTarget, decoding: Decoding, has_fault: bool, turns: list[TurnEntry]) -> None:
        self._models, self._decoding = target.models, decoding
        self._last_turns = {entry.prompt_id: entry.turn for entry in turns}
        self._lanes: dict[str, ForcedSession] = {}
        self._interleaved = _interleaved(turns)
        if self._interleaved and has_fault:
            raise UsageError(
                "the trace interleaves conversations of several turns, and a fault spoils one drafter alone: replay "
                "turn by turn with --turn N"
            )

    def of(self, entry: TurnEntry) -> ForcedSession:
        """The session that ``entry`` continues with, or a new one."""
        over = [name for name, last in self._last_turns.items() if last < entry.turn]
        for name in over:
            self._lanes.pop(name, None)
        if entry.prompt_id not in self._lanes:
            self._lanes[entry.prompt_id] = ForcedSession(self._models.teacher, self._drafter(), self._decoding)
        return self._lanes[entry.prompt_id]

    def _drafter(self) -> Drafter:
        """A drafter serves one session at a time: its twin shares the weights, and gets its own caches when its
        session begins."""
        return copy.copy(self._models.drafter) if self._interleaved else self._models.drafter


def _interleaved(turns: list[TurnEntry]) -> bool:
    """Whether a conversation goes on after the turn of another one."""
    left: set[str] = set()
    for before, entry in zip([None, *turns], turns, strict=False):
        if before is not None and before.prompt_id != entry.prompt_id:
            left.add(before.prompt_id)
        if entry.prompt_id in left:
            return True
    return False
