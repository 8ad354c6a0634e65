"""From the engine's tensors to the trace's records. The one file that knows both.

An observer: it reads what a step produced and changes nothing. What is large is digested; what is discrete is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import orjson
import torch

from specscope.engine.checks import index_tensors, pack_rows
from specscope.engine.digests import digest_tensors
from specscope.engine.drafters.base import Draft
from specscope.engine.generate import PhaseName, StepResult, TurnResult, TurnStarted, Verification
from specscope.engine.run_manifest import TraceLevel
from specscope.engine.side_files import SideFiles
from specscope.engine.tree import DraftTree
from specscope.engine.tree_tensors import TreeTensors
from specscope.schemas import (
    AcceptSection,
    CommitSection,
    DraftInputs,
    DraftLevel,
    DraftSection,
    Failure,
    InvariantsSection,
    Manifest,
    Prefill,
    Step,
    StopSection,
    TensorsSection,
    TimingSection,
    TreeSection,
    TurnEnd,
    TurnStart,
    VerifySection,
    Visit,
)
from specscope.tracer.writer import TraceWriter

SCORES_TOP_K = 8


class TurnLabel(NamedTuple):
    """Which turn of which prompt is running."""

    turn: int
    prompt_id: str
    prompt_turn: int
    prompt_text: str | None  # only where the user asked for text


def floats(values: torch.Tensor) -> list[float]:
    """``values`` (R,) with the fewest digits that restore each float32 exactly; float64 as it is.

    orjson knows the shortest form of a float32, and is faster than formatting one by one.
    """
    if values.dtype == torch.float64:
        return [float(v) for v in values.tolist()]
    array = values.detach().float().cpu().numpy()
    if not np.isfinite(array).all():
        return [float(f"{v:.9g}") for v in array.tolist()]
    shortest: list[float] = orjson.loads(orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY))
    return shortest


def two_by_two(values: list[float]) -> list[list[float]]:
    """``values`` in pairs."""
    return [values[i : i + 2] for i in range(0, len(values), 2)]


class Recorder:
    """Writes the manifest at once, then a record for each thing that it is told.

    Args:
        writer: the open trace.
        manifest: its first line.
        token_text: the text of one token, where the trace shall hold text.
        side_files: where level ``tensors`` puts its tensors; None at the other levels.
    """

    def __init__(
        self,
        writer: TraceWriter,
        manifest: Manifest,
        token_text: Callable[[int], str] | None,
        side_files: SideFiles | None,
    ) -> None:
        self._writer = writer
        self._level = manifest.level
        self._label: TurnLabel | None = None
        self._token_text = cache(token_text) if token_text is not None else None
        self._side_files = side_files
        writer.write(manifest)

    def begin_turn(self, label: TurnLabel) -> None:
        """Says which turn the next events belong to."""
        self._label = label

    def turn_started(self, turn: TurnStarted) -> None:
        """Writes ``turn_start``."""
        label = self._turn
        top = turn.last_logits.topk(2)
        self._writer.write(
            TurnStart(
                seq=self._writer.next_seq,
                turn=label.turn,
                prompt_id=label.prompt_id,
                prompt_turn=label.prompt_turn,
                prompt_ids=turn.prompt_ids,
                reused_length=turn.reused_length,
                prompt_text=label.prompt_text,
                prefill=Prefill(
                    num_tokens=len(turn.prompt_ids) - turn.reused_length,
                    dispatch=dict(turn.dispatch),
                    last_hidden_digest=digest_tensors(turn.last_hidden) if turn.last_hidden.numel() else None,
                    pending_token=turn.pending_token,
                    top_tokens=top.indices.tolist(),
                    top_logits=floats(top.values),
                    duration_ns=turn.duration_ns,
                ),
            )
        )

    def step_done(self, result: StepResult) -> None:
        """Writes ``step``."""
        verify = verify_section(result.tensors, result.verification, self._level)
        self._writer.write(
            Step(
                seq=self._writer.next_seq,
                turn=self._turn.turn,
                step=result.step,
                draft=draft_section(result.draft),
                tree=tree_section(result.draft.tree),
                tensors=tensors_section(result.tensors, result.verification.mask, result.tensorized_digest),
                verify=verify,
                accept=accept_section(result),
                commit=commit_section(result),
                stop=StopSection(emitted=result.stop.emitted, kept=result.stop.kept, reason=result.stop.reason),
                invariants=InvariantsSection(passed=result.report.passed, failed=result.report.failed, skipped=[]),
                timing=TimingSection(
                    **{f"{name}_ns": duration for name, duration in result.durations_ns.items()},
                    synchronised=result.verification.logits.device.type == "cpu",
                ),
                texts=self._texts(result, verify),
                tensor_files=self._side_files.write(self._turn.turn, result) if self._side_files else None,
            )
        )

    def turn_ended(self, result: TurnResult) -> None:
        """Writes ``turn_end``."""
        lengths = result.accepted_lengths
        self._writer.write(
            TurnEnd(
                seq=self._writer.next_seq,
                turn=self._turn.turn,
                output_ids=result.output_ids,
                reason=result.reason,
                num_steps=len(lengths),
                num_drafted=result.num_drafted,
                num_accepted=sum(lengths),
                accepted_by_depth=[sum(n > d for n in lengths) for d in range(max(lengths, default=0))],
                duration_ns=result.duration_ns,
            )
        )

    def failed(self, phase: PhaseName, step: int | None, inputs: dict[str, Any], error: Exception) -> None:
        """Writes ``failure`` with what the phases before had produced."""
        sections: dict[str, Any] = {}
        if "draft" in inputs:
            draft: Draft = inputs["draft"]
            sections["draft"] = draft_section(draft).model_dump(exclude_none=True)
            sections["tree"] = tree_section(draft.tree).model_dump(exclude_none=True)
        if "tensors" in inputs:
            sections["tensors"] = tensors_section(inputs["tensors"], None, None).model_dump(exclude_none=True)
        if "prompt_ids" in inputs:
            sections["prompt_ids"] = inputs["prompt_ids"]
        if "pairs" in inputs and "draft" not in inputs:
            sections["pairs"] = {"tokens": inputs["pairs"].tokens.tolist(), "source_rows": inputs["pairs"].source_rows}
        self._writer.write(
            Failure(
                seq=self._writer.next_seq,
                turn=self._label.turn if self._label else None,
                step=step,
                phase=phase,
                error=type(error).__name__,
                message=str(error),
                inputs=sections,
            )
        )

    def _texts(self, result: StepResult, verify: VerifySection) -> dict[str, str] | None:
        if self._token_text is None:
            return None
        seen = {*result.draft.tree.tokens.tolist(), *verify.argmax, *(t for two in verify.top_tokens for t in two)}
        return {str(token): self._token_text(token) for token in sorted(seen)}

    @property
    def _turn(self) -> TurnLabel:
        assert self._label is not None, "begin_turn comes first"
        return self._label


def draft_section(draft: Draft) -> DraftSection:
    """What the drafter was fed and what it proposed, level by level."""
    features = draft.pairs.features
    logprobs = iter(floats(torch.cat([level.logprobs.flatten() for level in draft.levels])) if draft.levels else ())
    return DraftSection(
        inputs=DraftInputs(
            source_rows=draft.pairs.source_rows,
            tokens=draft.pairs.tokens.tolist(),
            positions=draft.positions,
            hidden_digest=digest_tensors(features) if features.numel() else None,
            hidden_norms=floats(torch.linalg.vector_norm(features, dim=-1)) if features.numel() else None,
        ),
        kv_before=draft.kv_before,
        kv_after=draft.kv_after,
        levels=[
            DraftLevel(
                frontier=level.frontier.tolist(),
                positions=level.positions.tolist(),
                tokens=level.tokens.flatten().tolist(),
                logprobs=list(islice(logprobs, level.logprobs.numel())),
                finite=bool(level.all_finite),
            )
            for level in draft.levels
        ],
        num_candidates=sum(level.tokens.numel() for level in draft.levels),
    )


def tree_section(tree: DraftTree) -> TreeSection:
    """The tree in slots."""
    return TreeSection(
        tokens=tree.tokens.tolist(),
        parents=tree.parents.tolist(),
        depths=tree.depths.tolist(),
        logprobs=floats(tree.logprobs),
        scores=floats(tree.scores),
    )


def tensors_section(tensors: TreeTensors, mask: torch.Tensor | None, digest: str | None) -> TensorsSection:
    """What was made for the forward; the mask is read back from the very tensor that was used, where there is one."""
    committed = tensors.committed_length
    if mask is None:
        rows, prefix = pack_rows(tensors.visible), [committed] * tensors.padded_slots
    else:
        used = (mask[0, 0] == 0).cpu()
        rows, prefix = pack_rows(used[:, committed:]), used[:, :committed].numpy().sum(axis=1).tolist()
    return TensorsSection(
        committed_length=committed,
        num_slots=tensors.num_slots,
        padded_slots=tensors.padded_slots,
        mask_rows=[row.hex() for row in rows],
        prefix_visible=prefix,
        positions=tensors.position_ids.tolist(),
        token_ids=tensors.token_ids.tolist(),
        index_tensors=index_tensors(tensors),
        input_digest=digest,
    )


def verify_section(tensors: TreeTensors, verification: Verification, level: TraceLevel) -> VerifySection:
    """What the teacher said, a slot at a time."""
    logits = verification.logits[: tensors.num_slots]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top, probs, nonfinite = wide.topk(2, dim=-1), wide.softmax(dim=-1), _nonfinite_rows(wide)
    logsumexp = top.values[:, 0] - probs.gather(-1, top.indices[:, :1])[:, 0].log()
    # H = lse - sum p x, in one pass; where a logit is infinite, 0 x inf must count as 0.
    entropy = torch.special.entr(probs).sum(dim=-1) if nonfinite else logsumexp - torch.linalg.vecdot(probs, wide)
    best = (wide - logsumexp[:, None]).topk(SCORES_TOP_K, dim=-1) if level != "decisions" else None
    used = verification.mask[0, 0, :, tensors.committed_length :] == 0
    return VerifySection(
        dispatch=dict(verification.dispatch),
        argmax=verification.argmax,
        top_tokens=top.indices.tolist(),
        top_logits=two_by_two(floats(top.values.flatten())),
        logsumexp=floats(logsumexp),
        entropy=floats(entropy),
        nonfinite_slots=nonfinite,
        logits_digest=digest_tensors(logits),
        input_digest=digest_tensors(tensors.token_ids, tensors.position_ids, used),
        target_tokens=best.indices.tolist() if best else None,
        target_logprobs=[floats(row) for row in best.values] if best else None,
    )


def _nonfinite_rows(values: torch.Tensor) -> list[int]:
    """Rows that hold a value that is not finite. One such value makes the sum not finite, which is cheap to see."""
    if bool(torch.isfinite(values.sum())):
        return []
    rows: list[int] = (~torch.isfinite(values).all(dim=-1)).nonzero().flatten().tolist()
    return rows


def accept_section(result: StepResult) -> AcceptSection:
    """The walk, node by node."""
    acceptance = result.acceptance
    return AcceptSection(
        rule=acceptance.rule,
        visited=[Visit(slot=node.slot, wanted=node.wanted, child=node.child) for node in acceptance.visited],
        path=acceptance.path,
        accepted_length=acceptance.accepted_length,
        bonus_token=acceptance.bonus_token,
        bonus_slot=acceptance.bonus_slot,
    )


def commit_section(result: StepResult) -> CommitSection:
    """What was moved where, with the checksums that prove it."""
    commit, content = result.commit, result.commit.content
    return CommitSection(
        strategy=commit.strategy,
        committed_before=commit.committed_before,
        committed_after=commit.committed_after,
        source_slots=commit.source_slots,
        destination_rows=commit.destination_rows,
        source_checksums=content.source_checksums if content else None,
        written_checksums=content.written_checksums if content else None,
        prefix_layer=content.prefix_layer if content else None,
        prefix_before=content.prefix_before if content else None,
        prefix_after=content.prefix_after if content else None,
        drafter_before=result.draft.kv_before,
        drafter_after=result.drafter_pairs,
    )
