"""A conversation decoded along a recording: teacher forcing with trees.

The loop runs as ever, but for its outcome. Each step is given the recorded tree, where the drafter found another, and
what it commits and emits is the recorded path, bonus token and stop. So every step begins behind the same tokens as
then, whatever the steps before it decided, and what a step decides itself is told to the observer.

Everything goes in through seams: a wrapped drafter, ``Phases.accept`` and ``Phases.stop``; only the first token of a
turn has none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch

from specscope.engine.acceptance import Acceptance
from specscope.engine.cache import TreeCache
from specscope.engine.decoding import (
    AcceptInputs,
    Decoding,
    EndReason,
    PendingDraw,
    PhaseName,
    RowAcceptance,
    StepResult,
    TurnResult,
    TurnStarted,
)
from specscope.engine.drafters.base import Draft, Drafter, DraftPairs
from specscope.engine.generate import Session
from specscope.engine.recording import TurnRecorder
from specscope.engine.stopping import StopDecision, StopRules, StopWatch
from specscope.engine.teacher import Teacher
from specscope.engine.tree import DraftTree
from specscope.engine.turns import Turn, TurnRequest
from specscope.schemas import ForcedSection, Step, StopSection, TreeSection, TurnStart
from specscope.tracer.errors import UsageError
from specscope.tracer.invariants.base import committed_path, next_root


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
    return Recorded(tree, path, bonus, step.stop, decided)


def tree_of(section: TreeSection, device: torch.device) -> DraftTree:
    """One recorded tree as a drafter would hand it out."""
    unsaid = [0.0] * len(section.tokens)

    def row(values: list[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([values], dtype=dtype, device=device)

    return DraftTree(
        row(section.tokens, torch.int64),
        row(section.parents, torch.int64),
        row(section.depths, torch.int64),
        row(section.logprobs or unsaid, torch.float32),
        row(section.scores or unsaid, torch.float32),
        [len(section.tokens)],
    )


class FedPairs(NamedTuple):
    """The pairs that a drafter holds of one row, on the host."""

    features: torch.Tensor | None  # (R, F); None before the first
    tokens: list[int]

    def first(self, count: int) -> FedPairs:
        """The first ``count``."""
        return FedPairs(None if self.features is None else self.features[:count], self.tokens[:count])

    def and_then(self, pairs: DraftPairs) -> FedPairs:
        """With ``pairs`` behind them."""
        added = pairs.features.cpu()
        features = added if self.features is None else torch.cat([self.features, added])
        return FedPairs(features, [*self.tokens, *pairs.token_list])


class ForcedTrees:
    """A drafter that does its work, and is then given the recorded tree where it found another."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.wanted: TreeSection | None = None  # of the next step; None leaves the drafter's own
        self.keep_shared = True  # whether a tree that it found itself may keep the layers that it ran for it
        self.replaced = False  # whether the last tree was another one
        self.own_tree: DraftTree | None = None  # the last that the drafter found itself
        self.fed: FedPairs | None = None  # all that the drafter was fed, where somebody wants to know

    def __getattr__(self, name: str) -> Any:
        return getattr(self._drafter, name)

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """The drafter's own."""
        if self.fed is not None:
            self.fed = self.fed.first(num_pairs)
        self._drafter.begin_turn(row, context_ids, num_pairs)

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """The drafter's own draft, with the recorded tree."""
        if self.fed is not None:
            self.fed = self.fed.and_then(pairs[0])
        draft = self._drafter.propose(pairs, branch, generators)
        self.own_tree = draft.tree
        if self.wanted is None:
            return draft
        own = (draft.tree.tokens[0].tolist(), draft.tree.parents[0].tolist(), draft.tree.depths[0].tolist())
        self.replaced = own != (self.wanted.tokens, self.wanted.parents, self.wanted.depths)
        if not self.replaced and (self.keep_shared or draft.shared is None):
            return draft
        branch.drop_tail()  # what layers were shared, they were run on the drafter's own tree
        if not self.replaced:
            return replace(draft, shared=None)
        tree = tree_of(self.wanted, draft.tree.tokens.device)
        return replace(draft, tree=tree, shared=None, child_probs=_moved_probs(draft, tree))


def _moved_probs(draft: Draft, tree: DraftTree) -> torch.Tensor | None:
    """(1, N, V) what each slot's children were drawn from, where the drafter's own tree has the same node; zeros, as of
    children that cannot have been drawn, elsewhere."""
    if draft.child_probs is None:
        return None
    slots = {path: slot for slot, path in reversed(list(enumerate(_token_paths(draft.tree))))}
    moved = draft.child_probs.new_zeros(1, tree.tokens.shape[1], draft.child_probs.shape[2])
    for slot, path in enumerate(_token_paths(tree)):
        if path in slots:
            moved[0, slot] = draft.child_probs[0, slots[path]]
    return moved


def _token_paths(tree: DraftTree) -> list[tuple[int, ...]]:
    """Per slot, the tokens from below the root to it."""
    paths: list[tuple[int, ...]] = [()]
    tokens, parents = tree.tokens[0].tolist(), tree.parents[0].tolist()
    for slot in range(1, len(tokens)):
        paths.append((*paths[parents[slot]], tokens[slot]))
    return paths


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

    def failed(self, phase: PhaseName, step: int | None, inputs: dict[str, Any], error: Exception) -> None:
        """As it is."""
        self.recorder.failed(phase, step, inputs, error)


class ForcedSession:
    """One conversation along its recording, a row alone.

    Args:
        teacher, drafter: the models; the drafter serves no other session meanwhile.
        decoding: the configuration; its phases may have a fault in.
        keep_shared: whether a drafter that runs the teacher's first layers may hand them on to the verify forward.
    """

    def __init__(self, teacher: Teacher, drafter: Drafter, decoding: Decoding, *, keep_shared: bool = True) -> None:
        self._accept = decoding.phases.accept
        self._own: Acceptance | None = None
        self._recorded: Recorded | None = None
        self.trees = ForcedTrees(drafter)
        self.trees.keep_shared = keep_shared
        self._upcoming = StopSection(emitted=[], kept=1, reason=None)
        phases = replace(
            decoding.phases, accept=self._forced_acceptance, stop=self._forced_stop, stop_on_violation=False
        )
        self.session = _Session(teacher, cast(Drafter, self.trees), replace(decoding, phases=phases))

    def begin(self, start: TurnStart, rules: StopRules, recorder: TurnRecorder | None, end: EndReason | None) -> None:
        """Takes in the recorded prompt; the turn ends there for the reason ``end``, if it did.

        Raises:
            UsageError: where the prompt does not fit the teacher.
        """
        self.session.pending_token = start.prefill.pending_token
        if not 0 <= start.prefill.pending_token < self.session.teacher.vocab_size:
            raise UsageError(f"turn {start.turn}: token {start.prefill.pending_token} is none of this teacher's")
        observer = _Observer(recorder, self) if recorder is not None else None
        self._upcoming = StopSection(emitted=[], kept=1, reason=None)
        self.session.begin(0, TurnRequest(start.prompt_ids, rules, observer, start.generator_seed))
        if end is not None:
            self.end(end)

    def observe(self, recorder: TurnRecorder) -> None:
        """Has ``recorder`` told of the steps from here on."""
        turn = self.session.rows[0].turn
        assert turn is not None
        turn.observer = _Observer(recorder, self)

    def step(self, step: Step) -> StepOutcome:
        """Runs one step, and makes of it what was recorded.

        Raises:
            UsageError: where the record cannot be followed.
        """
        recorded = recorded_step(step, self.session.teacher, self.session.drafter.policy.depth)
        self._recorded, self._upcoming, self.trees.wanted = recorded, recorded.stop, recorded.tree
        (result,) = self.session.step()
        return self.outcome(result)

    def outcome(self, result: StepResult) -> StepOutcome:
        """The step that the loop reports, told apart into its own decision and what was forced."""
        own, recorded = self._own, self._recorded
        assert own is not None
        assert recorded is not None
        length = int(own.lengths[0])
        path = own.paths[0, :length].tolist()
        tokens = result.shared.tensors.token_ids[0].tolist()
        acceptance = RowAcceptance(
            own.rule, path, [tokens[slot] for slot in path], int(own.bonus_tokens[0]), int(own.bonus_slots[0])
        )
        forced = ForcedSection(tree=self.trees.replaced, path=recorded.path, bonus_token=recorded.bonus_token)
        as_recorded = (acceptance.path, acceptance.bonus_token) == recorded.decided
        return StepOutcome(replace(result, acceptance=acceptance), forced, as_recorded)

    def end(self, reason: EndReason) -> None:
        """Ends the turn, if it has not ended."""
        self.session.end_stopped()
        self.session.abandon(reason)

    def _forced_stop(self, watch: StopWatch, emitted: list[int]) -> StopDecision:
        """The block is cut where the recording was."""
        watch.output_ids += emitted[: self._upcoming.kept]
        watch.reason = self._upcoming.reason
        return StopDecision(emitted, self._upcoming.kept, watch.reason)

    def _forced_acceptance(self, inputs: AcceptInputs) -> Acceptance:
        """The loop goes on with the recorded outcome; the step's own is kept aside."""
        own = self._own = self._accept(inputs)
        recorded = self._recorded
        assert recorded is not None

        def row(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=own.paths.dtype, device=own.paths.device)

        path = recorded.path
        padding = [0] * (own.paths.shape[1] - len(path))
        return replace(
            own,
            lengths=row([len(path)]),
            paths=row([*path, *padding])[None],
            bonus_slots=row([path[-1] if path else 0]),
            bonus_tokens=row([recorded.bonus_token]),
        )
