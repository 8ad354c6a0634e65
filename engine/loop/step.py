"""The phases of a step, in the order in which ``Session.step`` runs them. Each fills in what is in flight.

Knows no file format and no transformers.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from specscope.engine.backends.attention import DispatchLog, dispatch_log
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import Commit, RowCustody, prefix_sums
from specscope.engine.cache.custody import layer_sums
from specscope.engine.drafters.base import Draft, Drafter, SharedLayers
from specscope.engine.host import lies_on_host
from specscope.engine.loop.acceptance import read_outcomes, row_coins
from specscope.engine.loop.graphs import TeacherForward, VerifyGraphs
from specscope.engine.loop.guided import advance_guided, guide_step, refuse_dead_end
from specscope.engine.loop.in_flight import Decision, StepInFlight
from specscope.engine.loop.phases import (
    AcceptInputs,
    Custody,
    Decoding,
    ForwardInputs,
    GraphUse,
    Verification,
)
from specscope.engine.loop.shapes import TreeDispatcher
from specscope.engine.loop.turns import Row
from specscope.engine.teacher.model import Teacher, TeacherOutput
from specscope.engine.tree.checks import ALL_PASSED, CheckReport, check_row, snapshot_of, sound_rows
from specscope.engine.tree.tensors import TreeTensors
from specscope.tracer.errors import ViolationError


@dataclass(frozen=True, kw_only=True)
class StepPhases:
    """The phases, over the parts of one session, which share them."""

    teacher: Teacher
    drafter: Drafter
    decoding: Decoding
    cache: TreeCache
    rows: list[Row]
    graphs: VerifyGraphs | None  # None: forwards are not captured
    dispatcher: TreeDispatcher | None = None  # None: every step has the drafter's shape

    def choose_shape(self, step: StepInFlight) -> None:
        """The shape of the step's trees, where each step has its own."""
        if self.dispatcher is not None:
            step.shape = self.dispatcher.choose(step.committed_lengths)
            self.dispatcher.prepare(self.drafter, step.shape)

    def draft(self, step: StepInFlight, branch: TreeCache) -> Draft:
        """The drafter takes in what was committed and proposes a tree per row."""
        drawn = self.decoding.rule.draft == "sampled"
        generators = [turn.generator for turn in step.turns if turn.generator is not None] if drawn else None
        with step.clock.phase("draft"):
            draft = step.draft = self.drafter.propose([row.fed for row in step.rows], branch, generators)
        for row in step.rows:
            if row.custody is not None:
                row.custody = row.custody._replace(drafter_after=self._sums_after(row.number, row.custody))
        return draft

    def take_custody(self, step: StepInFlight) -> None:
        """What both caches hold of each row that somebody observes, before anything is fed."""
        for row in step.rows:
            if row.turn.observer is not None:
                kept = self.drafter.kept(row.number)
                row.custody = Custody(
                    teacher=prefix_sums(self.cache, row.number),
                    drafter=None if kept is None else layer_sums(kept),
                    drafter_length=0 if kept is None else kept.shape[3],
                )

    def _sums_after(self, row: int, before: Custody) -> torch.Tensor | None:
        """Of what the drafter's cache holds after the draft: what it held, and what it took in."""
        kept, length = self.drafter.kept(row), before.drafter_length
        if kept is None:
            return None
        if before.drafter is None or kept.shape[3] < length:
            return layer_sums(kept)
        return before.drafter + layer_sums(kept[:, :, :, length:], length)

    def tensorize(self, step: StepInFlight, draft: Draft) -> TreeTensors:
        """The trees as ids, positions and visibility, of which a copy is kept where somebody observes."""
        with step.clock.phase("tensorize"):
            tensors = self.decoding.phases.tensorize(draft, step.committed_lengths, self.drafter.policy.depth)
        step.tensors = tensors
        if step.observed:
            step.snapshot = snapshot_of(tensors)
        return tensors

    def check(self, step: StepInFlight, tensors: TreeTensors) -> None:
        """Looks at every row's tree, unless the check is left to the device."""
        if self.decoding.checks == "deferred":
            return
        for row in step.rows:
            row.report = check_row(tensors, row.number, self.teacher.vocab_size)
        if self.decoding.phases.stop_on_violation:
            failed = [f"row {row.number}: {_witnesses(row.report)}" for row in step.rows if row.violates]
            if failed:
                raise ViolationError(failed[0])

    def verify(self, step: StepInFlight, draft: Draft, tensors: TreeTensors, branch: TreeCache) -> Verification:
        """One forward of the teacher over all slots of all rows; processors, and then grammars, change its logits."""
        phases = self.decoding.phases
        given = phases.inputs(tensors, self.teacher.dtype)
        with dispatch_log() if step.observed else nullcontext(DispatchLog()) as dispatch:
            output, given, use = self._forward(given, step.committed_lengths, draft.shared, branch)
        logits = output.logits
        if any(turn.processors is not None for turn in step.turns):
            contexts = [row.committed_ids for row in self.rows]
            logits = phases.processors([turn.processors for turn in step.turns], contexts, tensors, logits)
        unguided = None
        if self.decoding.grammar is not None:
            unguided, logits = logits, guide_step(step, tensors, logits, phases)
        step.verification = Verification(
            logits=logits,
            raw_logits=output.logits,
            features=output.features,
            argmax=argmax_of(logits),
            inputs=given,
            feature_layers=self.drafter.feature_layers,
            dispatch=dispatch,
            windows=list(dispatch.windows.values()) if self.teacher.sliding_windows is not None else None,
            graph=use,
            unguided_logits=unguided,
        )
        return step.verification

    def _forward(
        self, given: ForwardInputs, lengths: list[int], shared: SharedLayers | None, branch: TreeCache
    ) -> TeacherForward:
        """The teacher's forward, by a graph where forwards are captured."""
        layers = self.drafter.feature_layers
        if shared is not None:
            use = GraphUse(fallback="the drafter has run the first layers") if self.graphs is not None else None
            return TeacherForward(self._resume(given, shared, branch), given, use)
        if self.graphs is not None:
            return self.graphs.forward(given, lengths, branch, feature_layers=layers)
        return TeacherForward(self.teacher.forward(*given, branch, feature_layers=layers), given, None)

    def _resume(self, given: ForwardInputs, shared: SharedLayers, branch: TreeCache) -> TeacherOutput:
        """The layers behind those that the drafter has already run."""
        rest = range(shared.num_layers, self.teacher.num_layers)
        hidden = self.teacher.run_layers(shared.hidden, given.position_ids, given.mask, branch, layers=rest)
        return TeacherOutput(self.teacher.head(hidden), hidden.new_zeros(*hidden.shape[:2], 0))

    def accept(self, step: StepInFlight, draft: Draft, tensors: TreeTensors, verification: Verification) -> None:
        """Which drafted tokens each row keeps: the one wait for the device.

        Raises:
            ViolationError: where the device finds that a tree is not one.
        """
        if self.decoding.rule.rule != "greedy":
            step.coins = [row_coins(row.turn, tensors, row.number) for row in step.rows]
        acceptance = self.decoding.phases.accept(
            AcceptInputs(
                tree=tensors,
                argmax=verification.argmax,
                logits=verification.logits,
                child_probs=draft.child_probs,
                coins=step.coins,
                rule=self.decoding.rule,
                max_children=max(self.drafter.policy.top_k, 1),
            )
        )
        deferred = step.rows[0].report is None
        sound = sound_rows(tensors, self.teacher.vocab_size) if deferred else None
        outcomes = read_outcomes(acceptance, tensors.token_ids, sound)
        if self.decoding.phases.stop_on_violation and not all(outcome.is_sound for outcome in outcomes):
            step.clock.current = "check"
            reports = [check_row(tensors, row.number, self.teacher.vocab_size) for row in step.rows]
            raise ViolationError("; ".join(_witnesses(report) for report in reports if report.failed))
        for row, outcome in zip(step.rows, outcomes, strict=True):
            row.acceptance = outcome.acceptance
            if row.report is None:
                row.report = ALL_PASSED if outcome.is_sound else check_row(tensors, row.number, self.teacher.vocab_size)
        step.acceptance = acceptance

    def commit(self, step: StepInFlight, branch: TreeCache) -> list[Commit]:
        """The root's and the path's positions join the committed prefix."""
        paths = [[0, *row.accepted.path] for row in step.rows]
        known = [
            None if row.custody is None else RowCustody(row.custody.teacher, row.turn.step % self.teacher.num_layers)
            for row in step.rows
        ]
        return self.decoding.phases.commit(self.cache, branch, paths, known)

    def stop(self, step: StepInFlight, commits: list[Commit]) -> list[Decision]:
        """What each row emits, cut where a stop rule is met."""
        step.clock.current = "stop"
        decisions = []
        for row, commit in zip(step.rows, commits, strict=True):
            accepted, watch = row.accepted, row.turn.watch
            self.rows[row.number].committed_ids += [watch.output_ids[-1], *accepted.tokens]
            stop = self.decoding.phases.stop(watch, [*accepted.tokens, accepted.bonus_token])
            if row.masks is not None:
                assert step.verification is not None
                refuse_dead_end(row, step.verification.logits[row.number], stop.kept)
            row.guided = advance_guided(row, stop, self.decoding.phases)
            decisions.append(Decision(commit, stop))
        held = [row.committed_ids for row in self.rows]  # of all rows, now that each holds what it committed
        return [
            decision if row.custody is None else decision._replace(blocks=self.cache.block_note(row.number, held))
            for row, decision in zip(step.rows, decisions, strict=True)
        ]


def argmax_of(logits: torch.Tensor) -> torch.Tensor:
    """(B, P) of (B, P, V): the best token, the first of equal ones. On the host numpy finds it faster."""
    if not lies_on_host(logits) or logits.dtype not in {torch.float32, torch.float64}:
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.numpy().argmax(axis=-1))


def _witnesses(report: CheckReport | None) -> str:
    failures = [] if report is None else report.failed
    return "; ".join(f"{failure.id}: {failure.witness}" for failure in failures)
