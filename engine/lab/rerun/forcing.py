"""Conversations decoded along a recording: teacher forcing with trees.

The loop runs as ever, except for its outcome. Each step is given the recorded tree where the drafter found another, and
what it commits and emits is the recorded path, bonus token and stop. So every step begins after the same tokens as
then, whatever the steps before it decided, and what a step decides itself is reported to the observer.

Everything goes in through seams: a wrapped drafter, ``Phases.accept`` and ``Phases.stop``; only the first token of a
turn has none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from specscope.engine.accept.greedy import Acceptance
from specscope.engine.drafters.base import Drafter
from specscope.engine.lab.rerun.recorded_trees import RecordedTrees
from specscope.engine.loop.phases import (
    AcceptInputs,
    Decoding,
    EndReason,
    InFlight,
    PendingDraw,
    RowAcceptance,
    StepResult,
    TurnResult,
    TurnStarted,
)
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopDecision, StopReason, StopRules, StopWatch
from specscope.engine.loop.turns import Turn, TurnRequest
from specscope.engine.record.recorder import TurnRecorder
from specscope.engine.teacher.model import Teacher
from specscope.schemas import ForcedSection, Step, StopSection, TreeSection, TurnStart
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.invariants.base import committed_path, next_root


class Recorded(NamedTuple):
    """What a recorded step had and came to."""

    tree: TreeSection
    path: list[int]  # accepted slots that were committed, without the root
    bonus_token: int
    stop: StopSection
    decided: tuple[list[int], int]  # path and bonus token that the step chose; in a replay not what it committed


def recorded_step(step: Step, teacher: Teacher, max_depth: int) -> Recorded:
    """What ``step`` is forced to, checked to be something that ``teacher`` can run.

    Raises:
        UsageError: where the record lacks it, or it fits neither itself nor the teacher.
    """
    place = f"turn {step.turn} step {step.step}"
    path, bonus = committed_path(step), next_root(step)
    if step.tree is None or step.stop is None or path is None or bonus is None:
        raise UsageError(f"{place} does not record its tree, acceptance and stop, and cannot be run again without them")
    tree, count = step.tree, len(step.tree.tokens)
    sound = (
        count == len(tree.parents) == len(tree.depths)
        and tree.parents[:1] == [0]
        and all(0 <= parent < slot for slot, parent in enumerate(tree.parents[1:], 1))
        and all(0 <= depth <= max_depth for depth in tree.depths)
        and all(0 <= token < teacher.vocab_size for token in [*tree.tokens, bonus])
        and all(len(values) == count for values in (tree.logprobs, tree.scores) if values is not None)
        and all(0 < slot < count for slot in path)
        and 1 <= step.stop.kept <= len(path) + 1
    )
    if not sound:
        raise UsageError(f"{place}: the recorded tree and path fit neither themselves nor the teacher; was it changed?")
    decided = (path, bonus) if step.accept is None else (step.accept.path, step.accept.bonus_token)
    return Recorded(tree=tree, path=path, bonus_token=bonus, stop=step.stop, decided=decided)


class _Session(Session):
    """A session whose turns begin with a recorded first token, and with its own draw of it beside."""

    pending_token = 0

    def _first_token(self, logits: torch.Tensor, turn: Turn) -> tuple[int, PendingDraw | None]:
        _, draw = super()._first_token(logits, turn)
        return self.pending_token, draw


class StepOutcome(NamedTuple):
    """A step that was forced."""

    result: StepResult  # its acceptance is the step's own
    forced: ForcedSection
    as_recorded: bool  # whether it decided what the record says was decided


@dataclass(frozen=True)
class _Observer:
    """Tells a turn's recorder what each step found itself."""

    recorder: TurnRecorder
    session: ForcedSession

    def turn_started(self, turn: TurnStarted) -> None:
        """As it is."""
        self.recorder.turn_started(turn)

    def step_done(self, result: StepResult) -> None:
        """With the step's own acceptance, and what was forced beside it."""
        outcome = self.session.outcome(result)
        self.recorder.step_done(outcome.result, outcome.forced)

    def turn_ended(self, result: TurnResult) -> None:
        """As it is: the turn came to what was forced."""
        self.recorder.turn_ended(result)

    def failed(self, in_flight: InFlight, error: Exception) -> None:
        """As it is."""
        self.recorder.failed(in_flight, error)


class _Stop(NamedTuple):
    """How the block of a row was cut."""

    kept: int
    reason: StopReason | None


class ForcedSession:
    """Conversations along their recording: one alone, or the rows of a batch side by side.

    Args:
        teacher, drafter: the models; the drafter serves no other session meanwhile.
        decoding: the configuration; its phases may have a fault in.
        num_rows: conversations side by side.
        keep_fed: whether to keep what the drafter is fed.
    """

    def __init__(
        self, teacher: Teacher, drafter: Drafter, decoding: Decoding, num_rows: int = 1, *, keep_fed: bool = False
    ) -> None:
        self._accept = decoding.phases.accept
        self._decided: Acceptance | None = None
        self._recorded: list[Recorded] = []
        self.trees = RecordedTrees(drafter, keep_fed=keep_fed)
        self._stops: deque[_Stop] = deque()  # of the rows, in the order in which the loop asks
        phases = replace(
            decoding.phases, accept=self._forced_acceptance, stop=self._forced_stop, stop_on_violation=False
        )
        self.session = _Session(teacher, self.trees, replace(decoding, phases=phases), num_rows)

    def begin(
        self,
        start: TurnStart,
        rules: StopRules,
        recorder: TurnRecorder | None,
        end: EndReason | None,
        row: int = 0,
    ) -> None:
        """Takes in the recorded prompt; the turn ends there for the reason ``end``, if it did.

        Raises:
            UsageError: where the prompt does not fit the teacher, or the turn began in another way than this engine's.
        """
        pending = start.prefill.pending_token
        if pending is None:
            raise UsageError(f"turn {start.turn} has no pending token: its engine drafts before its first token")
        if not 0 <= pending < self.session.teacher.vocab_size:
            raise UsageError(f"turn {start.turn}: token {pending} is none of this teacher's")
        self.session.pending_token = pending
        observer = _Observer(recorder, self) if recorder is not None else None
        # A turn that was cancelled, was interrupted or failed met no rule.
        rule = None if end == "cancelled" or end == "interrupted" or end == "failed" else end
        self._stops = deque([_Stop(1, rule)])
        self.session.begin(
            row, TurnRequest(start.prompt_ids, rules, observer=observer, generator_seed=start.generator_seed)
        )
        if end is not None and rule is None:
            self.end(end)

    def observe(self, recorder: TurnRecorder, row: int = 0) -> None:
        """From here on, reports the steps of ``row`` to ``recorder``."""
        turn = self.session.rows[row].turn
        assert turn is not None
        turn.observer = _Observer(recorder, self)

    def step(self, step: Step) -> StepOutcome:
        """Runs one step of the one row, and makes of it what was recorded.

        Raises:
            UsageError: where the record cannot be followed.
        """
        (outcome,) = self.step_together([step])
        return outcome

    def step_together(self, steps: list[Step]) -> list[StepOutcome]:
        """Runs one step of all rows, whose records are ``steps``, and makes of it what was recorded.

        Raises:
            UsageError: where a record cannot be followed.
        """
        depth = self._follow_shape(steps[0])
        self._recorded = [recorded_step(step, self.session.teacher, depth) for step in steps]
        self._stops = deque(_Stop(r.stop.kept, r.stop.reason) for r in self._recorded)
        self.trees.wanted = [recorded.tree for recorded in self._recorded]
        return [self.outcome(result) for result in self.session.step()]

    def _follow_shape(self, step: Step) -> int:
        """Where each step has its own shape, that of ``step`` is the next one's; how deep trees may be."""
        dispatcher = self.session.dispatcher
        if dispatcher is None:
            return self.session.drafter.policy.depth
        dispatcher.recorded = step.shape
        return max(policy.depth for policy in dispatcher.policies.values())

    def outcome(self, result: StepResult) -> StepOutcome:
        """The step that the loop reports, divided into its own decision and what was forced."""
        decided, recorded, row = self._decided, self._recorded[result.row], result.row
        assert decided is not None
        path = decided.paths[row, : int(decided.lengths[row])].tolist()
        tokens = result.shared.tensors.token_ids[row].tolist()
        acceptance = RowAcceptance(
            rule=decided.rule,
            path=path,
            tokens=[tokens[slot] for slot in path],
            bonus_token=int(decided.bonus_tokens[row]),
            bonus_slot=int(decided.bonus_slots[row]),
        )
        forced = ForcedSection(tree=self.trees.replaced[row], path=recorded.path, bonus_token=recorded.bonus_token)
        as_recorded = (acceptance.path, acceptance.bonus_token) == recorded.decided
        return StepOutcome(replace(result, acceptance=acceptance), forced, as_recorded)

    def end(self, reason: EndReason) -> None:
        """Ends the turns, where they have not ended."""
        self.session.end_stopped()
        self.session.abandon(reason)

    def _forced_stop(self, watch: StopWatch, emitted: list[int]) -> StopDecision:
        """The block is cut where the recording was."""
        kept, reason = self._stops.popleft()
        watch.output_ids += emitted[:kept]
        watch.reason = reason
        return StopDecision(emitted, kept, reason)

    def _forced_acceptance(self, inputs: AcceptInputs) -> Acceptance:
        """The loop continues with the recorded outcome; the step's own is kept aside."""
        decided = self._decided = self._accept(inputs)
        width = decided.paths.shape[1]

        def rows(values: list[Any]) -> torch.Tensor:
            return torch.tensor(values, dtype=decided.paths.dtype, device=decided.paths.device)

        paths = [recorded.path for recorded in self._recorded]
        return replace(
            decided,
            lengths=rows([len(path) for path in paths]),
            paths=rows([[*path, *[0] * (width - len(path))] for path in paths]),
            bonus_slots=rows([path[-1] if path else 0 for path in paths]),
            bonus_tokens=rows([recorded.bonus_token for recorded in self._recorded]),
        )
