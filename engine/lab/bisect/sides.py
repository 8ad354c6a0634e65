"""One side of a bisection: a configuration, run along the recording up to the step, and that step in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.lab.bisect.draft_calls import DraftCalls
from specscope.engine.lab.bisect.floors import relative_error
from specscope.engine.lab.bisect.operations import Captures, InPlace, Operation, Parts, capture
from specscope.engine.lab.bisect.schedule import Add, BatchPlan, Begin, Drop
from specscope.engine.lab.rerun.forcing import ForcedSession, StepOutcome
from specscope.engine.lab.rerun.recorded_run import Overrides, fault_target, load_recorded, recorded_decoding
from specscope.engine.lab.rerun.recorded_trees import FedPairs
from specscope.engine.lab.rerun.replay import begin_recorded, earlier_turns
from specscope.engine.loop.phases import ForwardInputs
from specscope.engine.record.recorder import TraceRecorder, TurnLabel
from specscope.engine.record.sections import tree_section
from specscope.engine.record.target import RUN_ERRORS
from specscope.engine.teacher.model import Teacher
from specscope.schemas import Manifest, Step, TreeSection
from specscope.schemas.bisection import Circumstances
from specscope.tracer.errors import EngineError, SpecScopeError, UsageError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a side is run along, and what its step is forced to."""

    recording: TraceReader
    entry: TurnEntry
    step: int  # its number in the turn
    record: Step
    plan: BatchPlan | None  # what ran beside it; None where nothing did


class Unsteady(NamedTuple):
    """A forward that gave something else when it was run again on the same inputs."""

    operation: Operation | None  # the first whose inputs were equal; None where the model's parts are unknown
    error: float  # relative L2, of that operation or else of the logits


class Alone(NamedTuple):
    """The verify forward of the row once more: whole, in one go, with nothing beside it. On the host."""

    captures: Captures  # empty where the model's parts are unknown
    logits: torch.Tensor  # (1, N, V)
    unsteady: Unsteady | None


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one configuration made of the step, and what it takes to go on asking."""

    teacher: Teacher
    lane: ForcedSession
    record: Step
    own_tree: TreeSection  # the one that the drafter found; the step ran on the recorded one
    fed: FedPairs  # that the drafter held after the step
    num_earlier: int  # of these, those that it had before the step
    given: ForwardInputs  # of the verify forward: the row's own slots
    sees_beyond: bool  # whether the row sees what lies after its own slots
    logits: torch.Tensor  # (1, N, V) on the host, as the teacher gave them in the step
    in_place: Captures  # in that forward; empty where the model's parts are unknown
    drafting: Captures  # in the draft before it
    alone: Alone
    prefix: torch.Tensor  # (L, 2, G, T, W) on the host: keys and values of the committed tokens, before the step
    committed_ids: list[int]  # T of them
    generator_state: torch.Tensor | None  # before the step, where it draws
    circumstances: Circumstances
    notes: list[str]


@torch.inference_mode()
def run_side(course: Course, manifest: Manifest, overrides: Overrides, advance: Callable[[str], None]) -> Side:
    """Runs the configuration of ``manifest`` along ``course`` up to the step, and that too.

    The run continues from the beginning of the conversation, of a batch from its beginning, every step forced: so the
    caches hold what this configuration makes of the recorded tokens, with whatever it does wrong on the way.

    Raises:
        UsageError: where the recording cannot be followed.
        IncomparableError: where the models are not those of the run.
        EngineError: where the engine fails.
    """
    models, notes, _ = load_recorded(manifest, overrides)
    target = fault_target(manifest, models)
    teacher, drafter, plan = target.models.teacher, target.models.drafter, course.plan
    try:
        watch = InPlace(Parts(teacher).modules)
    except UsageError as error:
        notes.append(str(error))
        watch = InPlace({})
    decoding = recorded_decoding(manifest, teacher, watch.within(target.phases))
    lane = ForcedSession(teacher, drafter, decoding, 0 if plan is not None else 1, keep_fed=True)
    try:
        if plan is None:
            _follow(lane, course, advance)
        else:
            _follow_batch(lane, course, plan, advance)
        return _run_step(lane, course, watch, manifest=manifest, notes=notes)
    except SpecScopeError:
        raise
    except RUN_ERRORS as error:
        raise EngineError(f"the step cannot be run again: {type(error).__name__}: {error}") from error


def _follow(lane: ForcedSession, course: Course, advance: Callable[[str], None]) -> None:
    """Stands where the step begins, with nothing beside it."""
    recording, turn = course.recording, course.entry
    for entry in [*earlier_turns(recording.turns, turn), turn]:
        start, end = recording.turn_start(entry), recording.turn_end(entry)
        begin_recorded(lane, recording.manifest, start=start, end=end, has_steps=bool(entry.steps), recorder=None)
        for number, record in enumerate(recording.steps(entry)):
            if entry is turn and number == course.step:
                return
            lane.step(record)
            advance(f"turn {entry.turn} step {number}")
        lane.end("interrupted")


def _follow_batch(lane: ForcedSession, course: Course, plan: BatchPlan, advance: Callable[[str], None]) -> None:
    """Stands where the step begins, with the rows beside it that were there then."""
    recording, session = course.recording, lane.session
    for action in plan.actions:
        if isinstance(action, Add):
            session.add_rows(1)
        elif isinstance(action, Drop):
            session.drop_row(action.row)
        elif isinstance(action, Begin):
            if action.is_new:
                session.clear_row(action.row)
            start, end = recording.turn_start(action.entry), recording.turn_end(action.entry)
            begin_recorded(
                lane,
                recording.manifest,
                start=start,
                end=end,
                has_steps=bool(action.entry.steps),
                recorder=None,
                row=action.row,
            )
        else:
            lane.step_together([recording.step(*member) for member in action.members])
            session.end_stopped()
            advance(f"step {action.members[0].step}")


def _run_step(lane: ForcedSession, course: Course, watch: InPlace, manifest: Manifest, notes: list[str]) -> Side:
    session, step = lane.session, course.record
    row = course.plan.row if course.plan is not None else 0
    turn = session.rows[row].turn
    if turn is None or step.tree is None:
        raise UsageError(f"turn {step.turn} ends before step {step.step}; was the trace changed?")
    length, num_slots = session.cache.committed_lengths[row], len(step.tree.tokens)
    kept = session.cache.committed(row)
    assert kept is not None
    prefix = kept.to("cpu", copy=True)
    committed = list(session.rows[row].committed_ids)
    state = turn.generator.get_state() if turn.generator is not None else None
    drafting = DraftCalls(row, len(session.rows), lambda: watch.is_open)
    with watch.watching(), drafting.watching(lane.trees.parts()):
        record, outcome = _recorded(lane, course, row, manifest)
    assert lane.trees.own_tree is not None
    shared = outcome.result.shared
    inputs, whole = shared.verification.inputs, length + num_slots
    given = _given_to(inputs, row, num_slots, whole)
    return Side(
        teacher=session.teacher,
        lane=lane,
        record=record,
        own_tree=tree_section(lane.trees.own_tree, row),
        fed=lane.trees.fed[row],
        num_earlier=shared.draft.kv_before[row],
        given=given,
        sees_beyond=bool((inputs.mask[row, :, :num_slots, whole:] == 0).any()),
        logits=shared.verification.raw_logits[row : row + 1, :num_slots].cpu(),
        in_place=watch.of_row(row, num_slots),
        drafting=drafting.found,
        alone=_run_alone(session.teacher, given, prefix),
        prefix=prefix,
        committed_ids=committed,
        generator_state=state,
        circumstances=_circumstances(lane, manifest, in_batch=course.plan is not None),
        notes=notes,
    )


def _given_to(inputs: ForwardInputs, row: int, num_slots: int, whole: int) -> ForwardInputs:
    """What of the inputs is one row's own: its real slots, and of the mask the columns up to the last of them."""
    rows = slice(row, row + 1)
    return ForwardInputs(
        inputs.token_ids[rows, :num_slots],
        inputs.position_ids[rows, :num_slots],
        inputs.mask[rows, :, :num_slots, :whole],
    )


def _circumstances(lane: ForcedSession, manifest: Manifest, *, in_batch: bool) -> Circumstances:
    teacher, trees = lane.session.teacher, lane.trees
    hands_over = manifest.drafter.kind == "early-exit"
    device = manifest.device
    here = {"threads": str(torch.get_num_threads()), "device": teacher.device.type}
    then = {"threads": str(device.num_threads or here["threads"]), "device": device.backend}
    return Circumstances(
        neighbours=lane.session.cache.num_rows - 1,
        in_batch=in_batch,
        lost_hand_over=hands_over and any(trees.replaced),
        others=[f"{name} {here[name]}, was {then[name]}" for name in here if here[name] != then[name]],
    )


def _run_alone(teacher: Teacher, given: ForwardInputs, prefix: torch.Tensor) -> Alone:
    """Twice, for a forward that does not repeat itself can be held to nothing."""
    try:
        modules = Parts(teacher).modules
    except UsageError:
        modules = {}
    first, second = (capture(teacher, modules, given, prefix_cache(teacher, prefix)) for _ in range(2))
    unsteady = None
    error = relative_error(first.logits, second.logits)
    if error > 0:
        unsteady = _first_unsteady(first.captures, second.captures) or Unsteady(None, error)
    return Alone(first.captures, first.logits, unsteady)


def _first_unsteady(first: Captures, second: Captures) -> Unsteady | None:
    """The first operation that was fed the same twice, and gave two things."""
    for operation, value in first.items():
        again = second[operation]
        error = relative_error(value.gave, again.gave)
        if error > 0 and torch.equal(value.fed, again.fed):
            return Unsteady(operation, error)
    return None


def _recorded(lane: ForcedSession, course: Course, row: int, manifest: Manifest) -> tuple[Step, StepOutcome]:
    """The step as a recorder writes it, of the one row."""
    step = course.record
    steps = [step]
    if course.plan is not None:
        steps = [course.recording.step(*member) for member in course.plan.members]
        steps[row] = step
    with TemporaryDirectory() as folder:
        path = Path(folder) / "step.jsonl"
        writer = TraceWriter(path, overwrite=False, warn=_no_room)
        recorder = TraceRecorder(writer, manifest.model_copy(update={"level": "decisions"}), None, None)
        lane.observe(recorder.turn(TurnLabel(step.turn, "step", 0, None)), row)
        outcome = lane.step_together(steps)[row]
        recorder.settle()
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
