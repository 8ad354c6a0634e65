"""One side of a bisection: a configuration, run along the recording up to the step, and that step in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from specscope.engine.cache import TreeCache
from specscope.engine.decoding import ForwardInputs
from specscope.engine.drafters.base import Draft
from specscope.engine.forcing import FedPairs, ForcedSession, StepOutcome
from specscope.engine.recorded_run import Overrides, decoding_of, fault_target, load_recorded
from specscope.engine.recording import Recorder, TurnLabel, tree_section
from specscope.engine.replay import begin_recorded, earlier_turns
from specscope.engine.teacher import Teacher
from specscope.engine.tracing import RUN_ERRORS
from specscope.schemas import Manifest, Step, TreeSection
from specscope.tracer.errors import EngineError, UsageError
from specscope.tracer.index import TurnEntry
from specscope.tracer.reader import TraceReader
from specscope.tracer.writer import TraceWriter


@dataclass(frozen=True)
class Side:
    """What one configuration made of the step, and what it takes to go on asking."""

    teacher: Teacher
    lane: ForcedSession
    record: Step
    own_tree: TreeSection  # the one that the drafter found; the step ran on the recorded one
    draft: Draft
    fed: FedPairs  # that the drafter held behind the step
    given: ForwardInputs  # of the verify forward
    logits: torch.Tensor  # (1, P, V) on the host, as the teacher gave them
    prefix: torch.Tensor  # (L, 2, G, T, W) on the host: keys and values of the committed tokens, before the step
    committed_ids: list[int]  # T of them
    generator_state: torch.Tensor | None  # before the step, where it draws
    notes: list[str]


@torch.inference_mode()
def run_side(
    recording: TraceReader, place: tuple[TurnEntry, int], manifest: Manifest, overrides: Overrides,
    advance: Callable[[str], None],
) -> Side:  # fmt: skip
    """Runs the configuration of ``manifest`` along ``recording`` up to the step, its number in the turn, and that too.

    The run goes on from the beginning of the conversation, every step forced: so the caches hold what this
    configuration makes of the recorded tokens, with whatever it does wrong on the way.

    Raises:
        UsageError: where the recording cannot be followed.
        IncomparableError: where the models are not those of the run.
        EngineError: where the engine fails.
    """
    models, notes, _ = load_recorded(manifest, overrides)
    target = fault_target(manifest, models)
    decoding = decoding_of(manifest, target.models.teacher, target.phases)
    lane = ForcedSession(target.models.teacher, target.models.drafter, decoding)
    lane.trees.fed = FedPairs(None, [])
    try:
        _follow(lane, recording, place, advance)
        return _run_step(lane, recording.step(*place), manifest, notes)
    except RUN_ERRORS as error:
        raise EngineError(f"the step cannot be run again: {type(error).__name__}: {error}") from error


def _follow(
    lane: ForcedSession, recording: TraceReader, place: tuple[TurnEntry, int], advance: Callable[[str], None]
) -> None:
    """Stands where the step begins."""
    turn, step = place
    for entry in [*earlier_turns(recording.turns, turn), turn]:
        start, end = recording.turn_start(entry), recording.turn_end(entry)
        begin_recorded(lane, recording.manifest, start, end, bool(entry.steps), None)
        for number, record in enumerate(recording.steps(entry)):
            if entry is turn and number == step:
                return
            lane.step(record)
            advance(f"turn {entry.turn} step {number}")
        lane.end("interrupted")


def _run_step(lane: ForcedSession, step: Step, manifest: Manifest, notes: list[str]) -> Side:
    session = lane.session
    (length,) = session.cache.committed_lengths
    prefix = session.cache.buffer[:, :, 0, :, :length].to("cpu", copy=True)
    committed = list(session.rows[0].committed_ids)
    turn = session.rows[0].turn
    if turn is None:
        raise UsageError(f"turn {step.turn} ends before step {step.step}; was the trace changed?")
    state = turn.generator.get_state() if turn.generator is not None else None
    lane.trees.keep_shared = False  # the verify forward is to be whole
    record, outcome = _recorded(lane, step, manifest)
    assert lane.trees.own_tree is not None
    verification = outcome.result.shared.verification
    return Side(
        session.teacher,
        lane,
        record,
        tree_section(lane.trees.own_tree, 0),
        outcome.result.shared.draft,
        lane.trees.fed or FedPairs(None, []),
        verification.inputs,
        verification.raw_logits.cpu(),
        prefix,
        committed,
        state,
        notes,
    )


def _recorded(lane: ForcedSession, step: Step, manifest: Manifest) -> tuple[Step, StepOutcome]:
    """The step as a recorder writes it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "step.jsonl"
        writer = TraceWriter(path, overwrite=False, warn=_no_room)
        recorder = Recorder(writer, manifest.model_copy(update={"level": "decisions"}), None, None)
        lane.observe(recorder.turn(TurnLabel(step.turn, "step", 0, None)))
        outcome = lane.step(step)
        writer.finish("complete")
        with TraceReader(path) as reader:
            (record,) = [line.record for line in reader.numbered_lines() if isinstance(line.record, Step)]
    return record, outcome


def _no_room(warning: str) -> None:
    raise EngineError(warning)


def prefix_cache(teacher: Teacher, prefix: torch.Tensor) -> TreeCache:
    """A cache of ``teacher`` whose committed tokens have the keys and values ``prefix`` (L, 2, G, T, W)."""
    cache = teacher.new_cache()
    cache.replace_buffer(prefix[:, :, None].to(device=teacher.device, dtype=teacher.dtype).contiguous())
    cache.committed_lengths = [prefix.shape[3]]
    return cache


def moved(given: ForwardInputs, teacher: Teacher) -> ForwardInputs:
    """Another side's inputs where ``teacher`` runs, in its dtype."""
    device = teacher.device
    return ForwardInputs(
        given.token_ids.to(device),
        given.position_ids.to(device),
        given.mask.to(device=device, dtype=teacher.dtype),
    )
