"""Runs a failed step again, from its failure record: is the failure still there, and does it come of the same tree?

The rows of the step are rebuilt: the teacher takes in the committed tokens and the drafter the pairs that it had, and
each turn gets its step number, its pending token and its generator's state. Then that one step runs, with the fault of
the run in it, and what the engine reports to the recorder is compared with what it reported then.

A rebuilt cache is that of one prefill, where the run's was filled step by step: equal except for rounding. So the
drafter may find another tree, where two scores nearly tie; then the recorded tree is put in its place.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import torch

from specscope.engine.drafters.base import DraftPairs
from specscope.engine.lab.faults import FaultTarget, find_fault, inject
from specscope.engine.lab.rerun.recorded_run import (
    Overrides,
    check_readable,
    load_recorded,
    recorded_decoding,
    rules_of,
)
from specscope.engine.lab.rerun.recorded_trees import RecordedTrees, trees_of
from specscope.engine.load.models import Models
from specscope.engine.loop.phases import Phases
from specscope.engine.loop.session import Session
from specscope.engine.loop.turns import Turn, TurnRequest
from specscope.engine.record.recorder import TraceRecorder, TurnLabel
from specscope.engine.record.side_files import SideFiles
from specscope.schemas import Failure, FailureState, Manifest, ShapeSection, Step, TreeSection
from specscope.tracer.errors import DamagedRecordError, EngineError, SpecScopeError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter

#: What is compared of each section: all that is exact.
COMPARED = {
    "tree": ("tokens", "parents", "depths"),
    "tensors": (
        "committed_length",
        "num_slots",
        "padded_slots",
        "mask_rows",
        "positions",
        "token_ids",
        "index_tensors",
    ),
    "accept": ("path", "bonus_token", "bonus_slot"),
}


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What became of the failure."""

    recorded: Failure  # of the first row
    num_rows: int  # that were rebuilt
    num_recorded: int  # that failed together
    failure: Failure | None  # None where the step ran through
    compared: list[str]  # sections
    differing: list[str]  # section.field that is not as recorded
    tree_put_in: bool  # because the drafter found another one
    notes: list[str]

    @property
    def outcome(self) -> Literal["reproduced", "not reproduced", "another failure"]:
        """The same error at the same phase, none, or another one."""
        if self.failure is None:
            return "not reproduced"
        same = (self.failure.error, self.failure.phase) == (self.recorded.error, self.recorded.phase)
        return "reproduced" if same else "another failure"


def reproduce(path: Path, overrides: Overrides, index: int | None = None) -> Reproduction:
    """Runs again what failed in the trace at ``path``: all rows that failed together, or row record ``index`` alone.

    Raises:
        UsageError: where the trace records no failure, or not enough of it, or the models cannot be loaded.
        IncomparableError: where the models are not those of the run.
        EngineError: where what led to the failure cannot be rebuilt.
    """
    with TraceReader(path) as reader:
        manifest, failures = reader.manifest, reader.failures()
    check_readable(path, manifest)
    if not failures:
        raise UsageError(f"{path} records no failure: there is nothing to run again")
    if index is not None and not 0 <= index < len(failures):
        raise UsageError(f"got index {index}, wanted 0..{len(failures) - 1}, the failures of {path}")
    rows = failures if index is None else [failures[index]]
    models, notes, _ = load_recorded(manifest, overrides)
    for failure in rows:
        _check_state(path, failure, models.teacher.vocab_size)
    run = _Rerun(manifest, models, rows)
    # A row alone may have tensors of another width: that of its batch's widest tree.
    compared = [name for name in COMPARED if name in rows[0].inputs and (rows == failures or name != "tensors")]
    attempt, put_in = run.attempt(put_in=False), False
    differing = _differing(rows, attempt, compared)
    if any(name.startswith("tree.") for name in differing):
        attempt, put_in = run.attempt(put_in=True), True
        differing = _differing(rows, attempt, compared)
    failure_again = attempt.failures[0] if attempt.failures else None
    return Reproduction(
        recorded=rows[0],
        num_rows=len(rows),
        num_recorded=len(failures),
        failure=failure_again,
        compared=compared,
        differing=differing,
        tree_put_in=put_in,
        notes=notes,
    )


def _check_state(path: Path, failure: Failure, vocab_size: int) -> None:
    state = failure.state
    if state is None:
        raise DamagedRecordError(
            f"{path}: the failure record holds no state to start from; it is of an older version or another engine"
        )
    first, count, last = 1 if failure.step is not None else 0, len(state.context_ids), len(state.context_ids) - 1
    fits = all(0 <= token < vocab_size for token in state.context_ids) and count > first
    if failure.step is not None:
        fits = fits and 1 <= state.num_emitted <= last and 1 <= len(state.source_rows or []) <= last
    if not fits:
        raise DamagedRecordError(
            f"{path}: the failure record's state does not fit itself or the teacher; it was changed"
        )


class _Attempt(NamedTuple):
    """What the engine reported to the recorder."""

    failures: list[Failure]  # a row each; empty where the step ran through
    steps: list[Step]


class _Rerun:
    """The failed rows, to be run as often as wanted."""

    def __init__(self, manifest: Manifest, models: Models, rows: list[Failure]) -> None:
        target = FaultTarget(models, Phases())
        if manifest.fault:
            target = inject(target, find_fault(manifest.fault))
        # A run with a fault in goes on at a violation unless it was strict; then it ended with one.
        strict = manifest.fault is None or rows[0].error == "ViolationError"
        self._manifest, self._models, self._rows = manifest, target.models, rows
        self._decoding = recorded_decoding(manifest, models.teacher, replace(target.phases, stop_on_violation=strict))

    def attempt(self, *, put_in: bool) -> _Attempt:
        """Runs them; with ``put_in`` on the recorded trees, whatever the drafter finds."""
        drafter = self._models.drafter
        if put_in:
            drafter = trees = RecordedTrees(drafter)
            trees.wanted = recorded_trees(self._rows)
        session = Session(self._models.teacher, drafter, self._decoding, len(self._rows))
        shape = self._rows[0].inputs.get("shape")
        if session.dispatcher is not None and shape is not None:
            session.dispatcher.recorded = ShapeSection.model_validate(shape)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "again.jsonl"
            writer = TraceWriter(path, overwrite=False, warn=_no_room)
            side = SideFiles(path, writer, overwrite=False) if self._manifest.level == "tensors" else None
            recorder = TraceRecorder(writer, self._manifest, None, side)
            self._run(session, recorder)
            recorder.settle()
            writer.finish("complete")
            with TraceReader(path) as reader:
                records = [line.record for line in reader.numbered_lines()]
        return _Attempt([r for r in records if isinstance(r, Failure)], [r for r in records if isinstance(r, Step)])

    def _run(self, session: Session, recorder: TraceRecorder) -> None:
        rules = rules_of(self._manifest)
        requests = []
        for failure in self._rows:
            state = _state(failure)
            observer = recorder.turn(TurnLabel(failure.turn or 0, "again", 0, None))
            prompt = state.context_ids[: len(state.context_ids) - state.num_emitted]
            requests.append(TurnRequest(prompt, rules, observer=observer, generator_seed=state.generator_seed))
        is_prefill = self._rows[0].step is None
        if not is_prefill:
            try:
                stand_again(session, self._rows, requests)
            except SpecScopeError:
                raise
            except (RuntimeError, ValueError, LookupError, TypeError) as error:
                raise EngineError(f"what led to the step cannot be rebuilt: {type(error).__name__}: {error}") from error
        try:
            if is_prefill:
                session.begin(0, requests[0])
            else:
                session.step()
        except Exception as error:
            session.fail(error)


def _no_room(warning: str) -> None:
    raise EngineError(warning)


def _state(failure: Failure) -> FailureState:
    assert failure.state is not None
    return failure.state


@torch.inference_mode()
def stand_again(session: Session, rows: list[Failure], requests: list[TurnRequest]) -> None:
    """Puts every row of an empty ``session`` where its turn stood when the step began.

    Raises:
        UsageError: where a generator's state is none.
    """
    features = []
    for row, failure in enumerate(rows):
        committed = _state(failure).context_ids[:-1]
        session.drafter.begin_turn(row, committed, 0)
        with session.cache.only(row):
            features.append(session.take_in(committed, 0).features[0])  # (n, 3E)
        session.rows[row].committed_ids = committed
    _feed_earlier_pairs(session, rows, features)
    for row, (failure, request) in enumerate(zip(rows, requests, strict=True)):
        session.rows[row].turn = _turn(session, failure, request, features[row])


def _num_earlier(state: FailureState) -> int:
    """Pairs that the drafter had before the step; all pairs are one less than the tokens."""
    return len(state.context_ids) - 1 - len(state.source_rows or [])


def _feed_earlier_pairs(session: Session, rows: list[Failure], features: list[torch.Tensor]) -> None:
    """Feeds the drafter what it had been fed before the step, and drops what it proposes."""
    counts = [_num_earlier(_state(failure)) for failure in rows]
    if not any(counts):
        return
    pairs = []
    for failure, count, row_features in zip(rows, counts, features, strict=True):
        fed = max(1, count)  # one that is taken back, where there are none: no row can be left out
        tokens = _state(failure).context_ids[1 : 1 + fed]
        pairs.append(
            DraftPairs(list(range(fed)), row_features[:fed], torch.tensor(tokens, device=row_features.device), tokens)
        )
    session.drafter.propose(pairs, session.cache.branch())
    session.cache.drop_tail()
    for row, (failure, count) in enumerate(zip(rows, counts, strict=True)):
        session.drafter.begin_turn(row, _state(failure).context_ids[:-1], count)


def _turn(session: Session, failure: Failure, request: TurnRequest, features: torch.Tensor) -> Turn:
    state, turn = _state(failure), session.new_turn(request, failure.row or 0)
    earlier = _num_earlier(state)
    tokens = state.context_ids[1 + earlier :]
    turn.step = failure.step or 0
    turn.watch.output_ids += state.context_ids[len(request.prompt_ids) :]
    turn.pairs = DraftPairs(
        list(state.source_rows or []), features[earlier:], torch.tensor(tokens, device=features.device), tokens
    )
    if turn.generator is not None:
        try:
            raw = bytearray(b64decode(state.generator_state or "", validate=True))
            turn.generator.set_state(torch.frombuffer(raw, dtype=torch.uint8))
        except (ValueError, RuntimeError, TypeError):
            raise DamagedRecordError(
                "the failure record's generator_state is none of torch's; it was changed"
            ) from None
    return turn


def recorded_trees(rows: list[Failure]) -> list[TreeSection]:
    """The trees of the failure records.

    Raises:
        UsageError: where a record does not hold a tree.
    """
    try:
        sections = [TreeSection.model_validate(failure.inputs["tree"]) for failure in rows]
        trees_of(sections, torch.device("cpu"))  # raises where a section does not fit itself
    except (KeyError, TypeError, ValueError, IndexError):
        raise UsageError("the failure record does not hold a tree; it was changed") from None
    return sections


def _differing(rows: list[Failure], attempt: _Attempt, compared: list[str]) -> list[str]:
    """What of the inputs, section.field, is not as recorded."""
    differing: dict[str, None] = {}
    again: Iterable[Failure | Step] = attempt.failures or attempt.steps
    for failure, other in zip(rows, again, strict=False):
        was, now = _inputs(failure), _inputs(other)
        for section in compared:
            if section in was and section in now:
                unlike = [name for name in COMPARED[section] if was[section].get(name) != now[section].get(name)]
                differing |= dict.fromkeys(f"{section}.{name}" for name in unlike)
    return list(differing)


def _inputs(record: Failure | Step) -> dict[str, Any]:
    if isinstance(record, Failure):
        return {name: section for name, section in record.inputs.items() if isinstance(section, dict)}
    sections = {"tree": record.tree, "tensors": record.tensors, "accept": record.accept}
    return {name: section.model_dump() for name, section in sections.items() if section is not None}
