"""A step that was run again, compared with what was recorded of it: what a re-run does not show it must not acquit."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Literal, NamedTuple

from specscope.schemas import Manifest, Step, TreeSection, TurnStart
from specscope.schemas.bisection import Circumstances, RecordedViolation, Recordings
from specscope.schemas.verdict import TIES, Difference
from specscope.tracer.compare.align import Aligned, align_steps, align_turns
from specscope.tracer.compare.drafts import compare_trees
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.manifests import both_draft
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.prefill import compare_prefills
from specscope.tracer.compare.steps import RecordedSteps, StepPair
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.places import StepPlace
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.oracle.step import step_violations

#: What of a step depends on what was forced to the recording, unless its own inputs are equal.
FORCED = ("accept", "commit")


class Rerun(NamedTuple):
    """What a side made of the step."""

    record: Step
    own_tree: TreeSection  # the one that its drafter found


def aligned_step(a: TraceReader, b: TraceReader, place: StepPlace) -> Aligned | None:
    """The candidate's step that begins where the baseline's at ``place`` does, after the same tokens."""
    for turns in align_turns(a, b).pairs:
        if turns.a.turn == place.turn:
            steps = (pair for pair in align_steps(a, b, turns) if pair.step_a == place.step)
            return next((pair for pair in steps if pair.same_context), None)
    return None


def first_difference(pair: StepPair, own_trees: list[TreeSection] | None = None) -> Difference | None:
    """The first difference that is not a tie. Of steps that ran on a recorded tree, ``own_trees`` are those that their
    drafters had found."""
    return next((d for d in _differences(pair, own_trees) if d.kind not in TIES), None)


def departure_of(pair: StepPair, own_tree: TreeSection) -> Difference | None:
    """Where the re-run ``pair.b`` parts from the recording ``pair.a``. What was forced does not count, nor what
    follows from that: the stop, and acceptance and commit from other inputs."""
    drafted = None if pair.a.step.tree is None else [pair.a.step.tree, own_tree]
    differences = [
        d for d in _differences(pair, drafted) if d.phase != "stop" and (d.phase not in FORCED or d.inputs_equal)
    ]
    accepted, forced = pair.b.step.accept, pair.b.step.forced
    if accepted is not None and forced is not None and accepted.path != forced.path:
        differences = [d for d in differences if d.phase != "commit"]  # that of the recorded path, not of its own
    return next((d for d in differences if d.kind not in TIES), None)


def _differences(pair: StepPair, own_trees: list[TreeSection] | None) -> list[Difference]:
    differences = compare_steps(pair)
    if own_trees is None or not pair.trees_compared:
        return differences
    drafts = [d for d in differences if d.phase == "draft"]
    a, b = (nodes.with_tree(tree) for nodes, tree in zip((pair.a, pair.b), own_trees, strict=True))
    chosen = list(compare_trees(replace(pair, a=a, b=b), drafts_equal=not drafts))
    return drafts + chosen + [d for d in differences if d.phase not in ("draft", "tree")]


class Held(NamedTuple):
    """Both recordings, and what they are held by."""

    a: TraceReader
    b: TraceReader
    step: Step  # the baseline's
    before: Step | None
    partner: Aligned | None
    judge: FloatJudge

    def to(self, baseline: Rerun, candidate: Rerun) -> Recordings:
        """The recordings against each other and against the re-runs."""
        a, b = self.a.manifest, self.b.manifest
        steps = RecordedSteps(self.step, baseline.record, self.before, self.before)
        summary = Recordings(
            aligned=self.partner is not None,
            baseline=departure_of(StepPair.of(steps, a, a, judge=self.judge), baseline.own_tree),
            violations=self._violations(baseline.record, candidate.record),
        )
        if self.partner is None:
            return summary
        other, previous, regrouped = self.partner.b, self.partner.previous_b, self.partner.regrouped > 0
        recorded = RecordedSteps(self.step, other, self.before, previous, regrouped=regrouped)
        between = StepPair.of(recorded, a, b, judge=self.judge)
        recorded_difference = first_difference(between) or self._prefills()
        # It ran after the baseline's step before, and where one of the two drafts nothing, not on its own trees.
        again = RecordedSteps(other, candidate.record, previous, self.before, regrouped=regrouped)
        rerun = replace(StepPair.of(again, b, b, judge=self.judge), trees_compared=both_draft(a, b))
        return summary.model_copy(
            update={
                "difference": recorded_difference,
                "candidate": departure_of(rerun, candidate.own_tree),
            }
        )

    def _violations(self, baseline: Step, candidate: Step) -> list[RecordedViolation]:
        """Of both recorded steps. A re-run is asked about those alone: its other digests are of its own numbers."""
        violations = _violations(
            "baseline",
            Context(manifest=self.a.manifest, turn=self._start_a, previous=self.before, step=self.step),
            baseline,
        )
        if self.partner is not None:
            b = self.partner.b
            start = next(self.b.turn_start(entry) for entry in self.b.turns if entry.turn == b.turn)
            violations += _violations(
                "candidate",
                Context(manifest=self.b.manifest, turn=start, previous=self.partner.previous_b, step=b),
                candidate,
            )
        return violations

    @property
    def _start_a(self) -> TurnStart:
        return next(self.a.turn_start(entry) for entry in self.a.turns if entry.turn == self.step.turn)

    def _prefills(self) -> Difference | None:
        """What the first step begins with is part of it: a first token, or logits after the prompt, that differ."""
        if self.before is not None or self.partner is None:
            return None
        number = self.partner.b.turn
        start = next(self.b.turn_start(entry) for entry in self.b.turns if entry.turn == number)
        difference = compare_prefills(self.judge, self._start_a.prefill, start.prefill)
        return difference if difference is not None and difference.kind not in TIES else None


def _violations(side: Literal["baseline", "candidate"], recorded: Context, again: Step) -> list[RecordedViolation]:
    repeated = {violation.invariant for violation in step_violations(replace(recorded, step=again))}
    return [
        RecordedViolation(
            side=side, invariant=violation.invariant, witness=violation.witness, again=violation.invariant in repeated
        )
        for violation in step_violations(recorded)
    ]


def lacking(manifest: Manifest, name: str, circumstances: Circumstances, difference: Difference | None) -> list[str]:
    """What the recorded run of the side called ``name`` had, and its re-run has not."""
    reasons = []
    if (manifest.batch_size or 1) > 1 and not circumstances.in_batch:
        reasons.append(f"the {name} ran in a batch of {manifest.batch_size}, its re-run has no rows beside it")
    if circumstances.lost_hand_over:
        reasons.append(f"the {name} was handed layers that its drafter had run; here they were run again")
    if circumstances.others:
        reasons.append(f"the {name}: {', '.join(circumstances.others)}")
    engine = f"specscope {version('specscope')}"
    if manifest.engine != engine:
        reasons.append(f"the {name} was recorded by {manifest.engine}, this is {engine}")
    if difference is not None:
        reasons.append(
            f"the {name}'s recording is not what this build computes: {difference.phase}, {difference.field}"
        )
    return reasons
