"""A pipelined run as a trace: one step per verified token, with its draft and what the stages did meanwhile.

A step's tree is the root alone, as of the teacher by itself: whatever reads, checks or compares traces sees sequential
decoding. What is the pipeline's own stands in the section ``pipeline``.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import NamedTuple

from specscope.engine.digests import digest_file
from specscope.engine.drafters.base import NoDrafter
from specscope.engine.drafters.early_exit.head import CONFIG_NAME, WEIGHTS_NAME, ExitHeadFiles
from specscope.engine.loop.phases import EndReason
from specscope.engine.ppsd.carrier import Carrier
from specscope.engine.ppsd.conductor import Conductor
from specscope.engine.ppsd.events import DROP_REASONS
from specscope.engine.ppsd.message import Event, EventKind
from specscope.engine.ppsd.outcome import PipelineTurn, Verified
from specscope.engine.ppsd.rank import StageFacts
from specscope.engine.ppsd.verifier import Said, read_draw, read_summary
from specscope.engine.record.manifest import RunFacts, build_manifest
from specscope.engine.run.prompts import Prompt
from specscope.engine.teacher.model import Teacher
from specscope.schemas import (
    AcceptSection,
    BonusDraw,
    DistributionCut,
    Drafter,
    Failure,
    Manifest,
    Pipeline,
    PipelineSection,
    PipelineStage,
    Prefill,
    StageCut,
    StageDrop,
    StageEvents,
    StageInterval,
    Step,
    StopSection,
    TreeSection,
    TurnEnd,
    TurnStart,
    VerifySection,
    Visit,
)
from specscope.tracer.files.writer import RecordSink

CAPABILITIES = ["tree", "verify.argmax", "verify.top_tokens", "accept", "stop", "pipeline"]
ACTIVITIES = {
    EventKind.PREFILL: "prefill",
    EventKind.VERIFY: "verify",
    EventKind.DRAFT: "draft",
    EventKind.HOP: "hop",
}


class PipelineFacts(NamedTuple):
    """What line 1 says of the pipeline."""

    stages: list[StageFacts]
    window: int
    head: ExitHeadFiles | None  # None where there is none, or it is untrained
    drafts: bool
    carrier: Carrier


class ExitHeadDrafter(NoDrafter):
    """The exit head, as a manifest names it. Steps have no trees, so that it proposes none."""

    def __init__(self, facts: PipelineFacts) -> None:
        super().__init__()
        self._facts = facts
        self.module = facts.head.head if facts.head is not None else None

    def manifest(self) -> Drafter:
        """Kind early-exit, or none of sequential decoding."""
        if not self._facts.drafts:
            return Drafter(kind="none")
        settings = {"exit_layer": len(self._facts.stages[0].layers)}
        head = self._facts.head
        if head is None:
            return Drafter(kind="early-exit", name="untrained", settings=settings)
        return Drafter(
            kind="early-exit",
            name=head.folder.name,
            config_digest=digest_file(head.folder / CONFIG_NAME),
            weights_digest=digest_file(head.folder / WEIGHTS_NAME),
            settings=settings,
        )


def pipeline_manifest(facts: RunFacts, teacher: Teacher, pipeline: PipelineFacts) -> Manifest:
    """Line 1 of the trace. ``teacher`` is the first stage's part, so its parameters are not digested one by one."""
    manifest = build_manifest(uuid.uuid4().hex, facts, teacher, ExitHeadDrafter(pipeline))
    whole = manifest.teacher.model_copy(update={"parameters": None})
    changed = {
        "teacher": whole,
        "capabilities": CAPABILITIES,
        "cache_strategy": None,
        "cache": None,
        "pipeline": Pipeline(
            exit_layer=len(pipeline.stages[0].layers),
            window=pipeline.window,
            backend=pipeline.carrier.name,
            staged=pipeline.carrier.is_staged,
            stages=[_stage(stage) for stage in pipeline.stages],
        ),
    }
    return manifest.model_copy(update=changed)


def _stage(facts: StageFacts) -> PipelineStage:
    return PipelineStage(
        first_layer=facts.layers.start,
        last_layer=facts.layers.stop - 1,
        weight_bytes=facts.num_bytes,
        clock_offset_ns=facts.clock.offset_ns,
        clock_uncertainty_ns=facts.clock.uncertainty_ns,
        hop_ns=facts.clock.hop_ns,
        device=facts.device,
    )


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """From the stages' clocks to nanoseconds since the run began, on the first stage's."""

    begun_ns: int
    offsets: list[int]  # per stage; 0 where what was measured may as well be none

    @classmethod
    def of(cls, stages: list[StageFacts]) -> _Clock:
        clocks = [stage.clock for stage in stages]
        offsets = [clock.offset_ns if abs(clock.offset_ns) > clock.uncertainty_ns else 0 for clock in clocks]
        return cls(begun_ns=time.monotonic_ns(), offsets=offsets)

    def since_begin(self, stage: int, time_ns: int) -> int:
        """On the first stage's clock."""
        return time_ns - self.offsets[stage] - self.begun_ns


class PipelineRecorder:
    """Writes the manifest at once, and hands out an observer for each turn."""

    def __init__(self, writer: RecordSink, manifest: Manifest, stages: list[StageFacts]) -> None:
        self.writer = writer
        self.sampled = manifest.sampling.rule != "greedy"
        self._clock = _Clock.of(stages)
        self._last_stage = len(stages) - 1
        self.running: PipelineTurnRecorder | None = None
        writer.write(manifest)

    def turn(self, number: int, prompt: Prompt, prompt_turn: int) -> PipelineTurnRecorder:
        """The observer of one turn."""
        self.running = PipelineTurnRecorder(self, number, prompt.id, prompt_turn)
        return self.running

    def events(self, events: list[Event]) -> StageEvents:
        """As the trace has them."""
        intervals, cuts, drops = [], [], []
        for event in events:
            if event.kind == EventKind.CUT:
                cuts.append(
                    StageCut(stage=event.stage, epoch=event.epoch, length_before=event.start, length_after=event.end)
                )
            elif event.kind == EventKind.DROP:
                reason = DROP_REASONS[event.end]
                drops.append(StageDrop(stage=event.stage, position=event.position, epoch=event.epoch, reason=reason))
            else:
                intervals.append(self._interval(event))
        return StageEvents(intervals=intervals, cuts=cuts, drops=drops)

    def _interval(self, event: Event) -> StageInterval:
        # A hop begins on the clock of the stage that sent it.
        begun_at = event.stage
        if event.kind == EventKind.HOP:
            begun_at = event.stage - 1 if event.stage else self._last_stage
        return StageInterval.model_validate(
            {
                "stage": event.stage,
                "activity": ACTIVITIES[event.kind],
                "position": event.position,
                "epoch": event.epoch,
                "start_ns": self._clock.since_begin(begun_at, event.start),
                "end_ns": self._clock.since_begin(event.stage, event.end),
            }
        )


class RunningPipeline(NamedTuple):
    """What runs the turns of a pipeline, for what ends its trace."""

    conductor: Conductor
    recorder: PipelineRecorder

    def abandon(self, reason: EndReason) -> None:
        """Ends the running turn."""
        self.conductor.abandon(reason)

    def fail(self, error: Exception) -> None:
        """Tells the recorder what happened, and ends the running turn."""
        if self.recorder.running is not None:
            self.recorder.running.failed(error)
        self.conductor.abandon("failed")


class PipelineTurnRecorder:
    """Writes a record for each thing that it hears of its turn."""

    def __init__(self, recorder: PipelineRecorder, turn: int, prompt_id: str, prompt_turn: int) -> None:
        self._recorder, self._writer = recorder, recorder.writer
        self._turn, self._prompt_id, self._prompt_turn = turn, prompt_id, prompt_turn
        self._root = 0
        self._num_steps = 0
        self.has_begun = False

    def turn_started(self, prompt_ids: list[int], reused_length: int, first: Verified) -> None:
        """Writes ``turn_start``."""
        summed = read_summary(first.result.extra())
        draw = None
        if first.coin is not None:
            drawn, cut = read_draw(first.result.extra(), first.coin)
            draw = drawn.model_copy(update={"cut": cut, "residual_digest": None})
        self._root, self.has_begun = first.verdict.token, True
        self._writer.write(
            TurnStart(
                seq=self._writer.next_seq,
                turn=self._turn,
                prompt_id=self._prompt_id,
                prompt_turn=self._prompt_turn,
                prompt_ids=prompt_ids,
                reused_length=reused_length,
                generator_seed=first.generator_seed,
                prefill=Prefill(
                    num_tokens=len(prompt_ids) - reused_length,
                    pending_token=first.verdict.token,
                    top_tokens=summed.top_tokens,
                    top_logits=summed.top_logits,
                    draw=draw,
                ),
                pipeline=self._section(first),
            )
        )

    def token_verified(self, verified: Verified) -> None:
        """Writes ``step``."""
        summed = read_summary(verified.result.extra())
        drawn: BonusDraw | None = None
        cut: DistributionCut | None = None
        if verified.coin is not None:
            drawn, cut = read_draw(verified.result.extra(), verified.coin)
        token, stop = verified.verdict.token, verified.stop
        self._writer.write(
            Step(
                seq=self._writer.next_seq,
                turn=self._turn,
                step=self._num_steps,
                tree=TreeSection(tokens=[self._root], parents=[0], depths=[0]),
                verify=_verify(summed),
                accept=_accept(token, summed, drawn, cut),
                stop=StopSection(emitted=stop.emitted, kept=stop.kept, reason=stop.reason),
                pipeline=self._section(verified),
            )
        )
        self._root = token
        self._num_steps += 1

    def turn_ended(self, turn: PipelineTurn, events: list[Event]) -> None:
        """Writes ``turn_end``."""
        if not self.has_begun:
            return
        self._writer.write(
            TurnEnd(
                seq=self._writer.next_seq,
                turn=self._turn,
                output_ids=turn.output_ids,
                reason=turn.reason,
                num_steps=self._num_steps,
                num_drafted=0,
                num_accepted=0,
                accepted_by_depth=[],
                duration_ns=turn.duration_ns,
                pipeline=self._recorder.events(events),
            )
        )
        self._recorder.running = None

    def failed(self, error: Exception) -> None:
        """Writes ``failure``."""
        self._writer.write(
            Failure(
                seq=self._writer.next_seq,
                turn=self._turn,
                step=self._num_steps if self.has_begun else None,
                phase="verify" if self.has_begun else "prefill",
                error=type(error).__name__,
                message=str(error),
                inputs={},
            )
        )

    def _section(self, verified: Verified) -> PipelineSection:
        verdict, draft = verified.verdict, verified.draft
        events = self._recorder.events(verified.events)
        return PipelineSection(
            position=verdict.position,
            epoch=verdict.epoch,
            draft_token=verdict.draft,
            draft_prob=draft.prob if draft is not None else None,
            accepted=verdict.accepted if verdict.draft is not None else None,
            in_flight=[item.position for item in verdict.dropped] if verdict.refuted else None,
            **dict(events),
        )


def _verify(summed: Said) -> VerifySection:
    return VerifySection(
        argmax=[summed.argmax],
        top_tokens=[summed.top_tokens],
        top_logits=[summed.top_logits],
        logsumexp=[summed.logsumexp],
        entropy=[summed.entropy],
        nonfinite_slots=[] if summed.finite else [0],
        logits_digest=summed.logits_digest,
    )


def _accept(token: int, summed: Said, drawn: BonusDraw | None, cut: DistributionCut | None) -> AcceptSection:
    visit = Visit(slot=0, wanted=summed.argmax) if drawn is None else Visit(slot=0, trials=[], cut=cut)
    return AcceptSection(
        rule="greedy" if drawn is None else "sampling",
        visited=[visit],
        path=[],
        accepted_length=0,
        bonus_token=token,
        bonus_slot=0,
        bonus_draw=drawn,
    )
