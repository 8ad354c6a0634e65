"""The observer that writes a trace: it reads what happens to a turn, writes a record of it, and changes nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import torch

from specscope.engine.backends.devices import backend_of
from specscope.engine.digests import digest_tensors
from specscope.engine.host import lies_on_host
from specscope.engine.loop.phases import (
    InFlight,
    StepResult,
    StepTensors,
    TurnResult,
    TurnStarted,
    TurnState,
)
from specscope.engine.record.accept import accept_section, pending_draw
from specscope.engine.record.best import best_tokens
from specscope.engine.record.guided import grammar_state, guided_section
from specscope.engine.record.host import on_host
from specscope.engine.record.ranks import rank_sections
from specscope.engine.record.sections import (
    commit_section,
    digest_features,
    draft_section,
    tensors_section,
    tree_section,
    verify_section,
)
from specscope.engine.record.side_files import SideFiles
from specscope.schemas import (
    Failure,
    FailureState,
    ForcedSection,
    HeldSection,
    InvariantsSection,
    Manifest,
    Prefill,
    Step,
    StopSection,
    TimingSection,
    TurnEnd,
    TurnStart,
    VerifySection,
)
from specscope.tracer.files.writer import RecordSink


class Joined(NamedTuple):
    """When a turn took its row, in steps that the rows of the run had taken together."""

    arrived_at: int  # from then on its request waited
    joined_at: int
    waited_ns: int | None = None  # until then, where requests arrive by seconds and this is the first turn


class TurnLabel(NamedTuple):
    """Which turn of which prompt is running."""

    turn: int
    prompt_id: str
    prompt_turn: int
    prompt_text: str | None  # only where the user asked for text
    joined: Joined | None = None  # None where rows have no common clock


class _Copied(NamedTuple):
    """What a step computed, and the same on the host."""

    of: StepTensors
    on_host: StepTensors


class _Pending(NamedTuple):
    """A step whose numbers are on their way from the device."""

    of: StepTensors
    write: Callable[[], None]


class TraceRecorder:
    """Writes the manifest at once, and hands out an observer for each turn.

    Args:
        writer: the open trace.
        manifest: its first line.
        token_text: the text of one token, where the trace shall hold text.
        side_files: where level ``tensors`` puts its tensors; None at the other levels.
    """

    def __init__(
        self,
        writer: RecordSink,
        manifest: Manifest,
        token_text: Callable[[int], str] | None,
        side_files: SideFiles | None,
    ) -> None:
        self.writer = writer
        self.level = manifest.level
        self.sampling = manifest.sampling
        self.token_text = cache(token_text) if token_text is not None else None
        self.side_files = side_files
        self._last: _Copied | None = None
        self._pending: list[_Pending] = []
        writer.write(manifest)

    def take_down(self, result: StepResult, write: Callable[[StepResult], None]) -> None:
        """Calls ``write`` with ``result``, its tensors on the host: at once where they lie there.

        From a device they are copied while the next step runs, and written when that is over: its acceptance has waited
        for the device, and so for the copy, which adds no wait.
        """
        shared = result.shared
        if lies_on_host(shared.verification.logits):
            write(result)
            return
        self._write_pending(but=shared)
        if self._last is None or self._last.of is not shared:
            self._last = _Copied(shared, on_host(shared))  # once for all rows
        copied = replace(
            result,
            shared=self._last.on_host,
            custody=on_host(result.custody),
            commit=on_host(result.commit),
        )
        self._pending.append(_Pending(shared, partial(write, copied)))

    def settle(self) -> None:
        """Waits for the device where a step is on its way, and writes it. What is written next comes after it."""
        if self._pending:
            device = self._pending[-1].of.verification.logits.device
            backend_of(device.type).synchronise(device)
            self._write_pending()

    def _write_pending(self, but: StepTensors | None = None) -> None:
        ready = [pending for pending in self._pending if pending.of is not but]
        self._pending = [pending for pending in self._pending if pending.of is but]
        for pending in ready:
            pending.write()

    def turn(self, label: TurnLabel) -> TurnRecorder:
        """The observer of one turn."""
        return TurnRecorder(self, label)


class TurnRecorder:
    """Writes a record for each thing that it is told of its turn."""

    def __init__(self, recorder: TraceRecorder, label: TurnLabel) -> None:
        self._recorder = recorder
        self._writer = recorder.writer
        self._label = label
        self._row = 0  # of the record before

    def turn_started(self, turn: TurnStarted) -> None:
        """Writes ``turn_start``."""
        self._recorder.settle()
        self._row = turn.row
        label, best = self._label, best_tokens(turn.last_logits[None].cpu())
        self._writer.write(
            TurnStart(
                seq=self._writer.next_seq,
                turn=label.turn,
                prompt_id=label.prompt_id,
                prompt_turn=label.prompt_turn,
                prompt_ids=turn.prompt_ids,
                reused_length=turn.reused_length,
                prompt_text=label.prompt_text,
                row=turn.row or None,
                arrived_at=None if label.joined is None else label.joined.arrived_at or None,
                joined_at=None if label.joined is None else label.joined.joined_at,
                waited_ns=None if label.joined is None else label.joined.waited_ns,
                held=HeldSection(**turn.held._asdict()),
                generator_seed=turn.generator_seed,
                generator_digest=digest_state(turn.generator_state),
                prefill=Prefill(
                    num_tokens=len(turn.prompt_ids) - turn.reused_length,
                    dispatch=dict(turn.dispatch),
                    last_hidden_digest=digest_features(turn.features[-1:]),
                    features_digest=digest_features(turn.features),
                    pending_token=turn.pending_token,
                    top_tokens=best.tokens[0],
                    top_logits=best.logits[0],
                    draw=pending_draw(turn, self._recorder.sampling),
                    prefix_digests=turn.prefix_digests,
                    block_table=turn.block_table,
                    guided=grammar_state(turn.guided),
                    duration_ns=turn.duration_ns,
                ),
            )
        )

    def step_done(self, result: StepResult, forced: ForcedSection | None = None) -> None:
        """Writes ``step``, of a device when the next one is over; in a replay with what was ``forced`` in place of its
        own outcome."""
        self._recorder.take_down(result, partial(self._write_step, forced=forced))

    def _write_step(self, result: StepResult, forced: ForcedSection | None) -> None:
        shared, row, side = result.shared, result.row, self._recorder.side_files
        read = None if result.blocks is None else result.blocks.read
        verify = verify_section(shared.tensors, shared.verification, row, self._recorder.level, block_table=read)
        report, digest = result.report, None if shared.snapshot is None else shared.snapshot.digest(row)
        self._writer.write(
            Step(
                seq=self._writer.next_seq,
                turn=self._label.turn,
                step=result.step,
                row=self._moved_to(result.row),
                shape=result.shape,
                draft=draft_section(shared.draft, row, result.custody),
                tree=tree_section(shared.draft.tree, row),
                tensors=tensors_section(shared.tensors, row, shared.verification.inputs, digest),
                verify=verify,
                guided=guided_section(result),
                accept=accept_section(result, self._recorder.sampling),
                commit=commit_section(result),
                stop=StopSection(emitted=result.stop.emitted, kept=result.stop.kept, reason=result.stop.reason),
                invariants=InvariantsSection(passed=report.passed, failed=report.failed, skipped=[]),
                ranks=rank_sections(result.ranks),
                forced=forced,
                timing=TimingSection(
                    **{f"{name}_ns": duration for name, duration in result.durations_ns.items()},
                    synchronised=result.synchronised,
                ),
                texts=self._texts(result, verify),
                tensor_files=side.write(self._label.turn, result) if side else None,
            )
        )

    def turn_ended(self, result: TurnResult) -> None:
        """Writes ``turn_end``."""
        self._recorder.settle()
        lengths = result.accepted_lengths
        self._writer.write(
            TurnEnd(
                seq=self._writer.next_seq,
                turn=self._label.turn,
                row=self._moved_to(result.row),
                output_ids=result.output_ids,
                reason=result.reason,
                num_steps=len(lengths),
                num_drafted=result.num_drafted,
                num_accepted=sum(lengths),
                accepted_by_depth=[sum(n > d for n in lengths) for d in range(max(lengths, default=0))],
                num_fallbacks=result.num_fallbacks or None,
                generator_digest=digest_state(result.generator_state),
                duration_ns=result.duration_ns,
            )
        )

    def failed(self, in_flight: InFlight, error: Exception) -> None:
        """Writes ``failure`` with what the phases before had produced, and what it takes to run the step again."""
        self._recorder.settle()
        self._writer.write(
            Failure(
                seq=self._writer.next_seq,
                turn=self._label.turn,
                step=in_flight.state.step,
                row=in_flight.row or None,
                phase=in_flight.phase,
                error=type(error).__name__,
                message=str(error),
                inputs=failure_inputs(in_flight),
                state=failure_state(in_flight.state),
                ranks=rank_sections(in_flight.ranks),
            )
        )

    def _moved_to(self, row: int) -> int | None:
        """``row``, where the record before was of another one."""
        before, self._row = self._row, row
        return None if row == before else row

    def _texts(self, result: StepResult, verify: VerifySection) -> dict[str, str] | None:
        token_text = self._recorder.token_text
        if token_text is None:
            return None
        drafted = result.shared.draft.tree.tokens[result.row].tolist()
        seen = {
            *drafted,
            *verify.argmax,
            *(t for two in verify.top_tokens or () for t in two),
            result.acceptance.bonus_token,
        }
        return {str(token): token_text(token) for token in sorted(seen)}


def digest_state(state: torch.Tensor | None) -> str | None:
    """Of a generator's state; None where nothing is drawn."""
    return None if state is None else digest_tensors(state)


def failure_inputs(in_flight: InFlight) -> dict[str, Any]:
    """What one row was working on when it failed: the sections of the phases that were over."""
    draft, tensors, accepted = in_flight.draft, in_flight.tensors, in_flight.acceptance
    inputs: dict[str, Any] = {}
    if in_flight.shape is not None:
        inputs["shape"] = in_flight.shape.model_dump(exclude_none=True)
    if draft is not None:
        inputs["draft"] = draft_section(draft, in_flight.row).model_dump(exclude_none=True)
        inputs["tree"] = tree_section(draft.tree, in_flight.row).model_dump(exclude_none=True)
    if tensors is not None:
        inputs["tensors"] = tensors_section(tensors, in_flight.row, None, None).model_dump(exclude_none=True)
    if accepted is not None:
        inputs["accept"] = {
            "path": accepted.path,
            "bonus_token": accepted.bonus_token,
            "bonus_slot": accepted.bonus_slot,
        }
    return inputs


def failure_state(state: TurnState) -> FailureState:
    """Where the turn stood, as a section."""
    drawn = state.generator_state
    return FailureState(
        context_ids=state.context_ids,
        num_emitted=state.num_emitted,
        source_rows=state.pairs.source_rows if state.pairs is not None else None,
        generator_seed=state.generator_seed,
        generator_state=b64encode(drawn.numpy().tobytes()).decode() if drawn is not None else None,
    )
