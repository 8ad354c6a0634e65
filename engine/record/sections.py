"""From the engine's tensors to the sections of a step's record: what is large is digested, what is discrete is kept.

The tensors lie on the host (see ``host.on_host``); they are read as arrays, since a slice of an array costs less
than one of a tensor.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.cache.custody import as_digest
from specscope.engine.digests import digest_tensors
from specscope.engine.drafters.base import Draft
from specscope.engine.loop.phases import Custody, ForwardInputs, StepResult, Verification
from specscope.engine.record.best import summary, wide
from specscope.engine.record.host import array, float_lists, floats
from specscope.engine.tree.checks import index_tensors, pack_rows
from specscope.engine.tree.grow import DraftTree, Level
from specscope.engine.tree.tensors import TreeTensors
from specscope.schemas import (
    CommitSection,
    DraftInputs,
    DraftLevel,
    DraftSection,
    TensorsSection,
    TreeSection,
    VerifySection,
)
from specscope.schemas.manifest import TraceLevel

SCORES_TOP_K = 8


def draft_section(draft: Draft, row: int, custody: Custody | None = None) -> DraftSection:
    """What the drafter was fed for one row and what it proposed, level by level."""
    pairs, after = draft.pairs[row], draft.kv_after[row]
    return DraftSection(
        inputs=DraftInputs(
            source_rows=pairs.source_rows,
            tokens=pairs.token_list,
            positions=list(range(after - len(pairs.token_list), after))
            if draft.positions is None
            else draft.positions[row].tolist(),
            hidden_digest=digest_features(pairs.features),
            hidden_norms=_norms(pairs.features) if pairs.features.numel() else None,
        ),
        kv_before=draft.kv_before[row],
        kv_after=after,
        levels=None if draft.levels is None else _levels(draft.levels, row),
        num_candidates=draft.num_candidates[row],
        kv_digest_before=_whole_digest(custody.drafter) if custody is not None else None,
        kv_digest_after=_whole_digest(custody.drafter_after) if custody is not None else None,
    )


def _levels(levels: list[Level], row: int) -> list[DraftLevel]:
    """Of one row."""
    logprobs = float_lists([array(level.logprobs)[row] for level in levels])
    totals, perturbed = (_where_there(levels, row, name) for name in ("logsumexp", "perturbed"))
    return [
        DraftLevel(
            frontier=array(level.frontier)[row].tolist(),
            positions=array(level.positions)[row].tolist(),
            tokens=array(level.tokens)[row].ravel().tolist(),
            logprobs=logprobs[number],
            finite=bool(array(level.all_finite)[row]),
            logsumexp=totals[number],
            perturbed=perturbed[number],
        )
        for number, level in enumerate(levels)
    ]


def _where_there(levels: list[Level], row: int, name: Literal["logsumexp", "perturbed"]) -> list[list[float] | None]:
    """One row's values level by level; None at those that have none."""
    there = [number for number, level in enumerate(levels) if getattr(level, name) is not None]
    lists = float_lists([array(getattr(levels[number], name))[row] for number in there])
    values = dict(zip(there, lists, strict=True))
    return [values.get(number) for number in range(len(levels))]


def _whole_digest(sums: list[int] | None) -> str | None:
    return None if sums is None else as_digest(sums)


def _norms(features: torch.Tensor) -> list[float]:
    """Of each of (R, F). A half format would round the sum of its own numbers, and hide how far they are off."""
    return floats(array(torch.linalg.vector_norm(wide(features), dim=-1)))


def tree_section(tree: DraftTree, row: int) -> TreeSection:
    """One row's tree in slots."""
    slots = slice(tree.num_slots[row])
    logprobs, scores = float_lists([array(tree.logprobs)[row, slots], array(tree.scores)[row, slots]])
    return TreeSection(
        tokens=array(tree.tokens)[row, slots].tolist(),
        parents=array(tree.parents)[row, slots].tolist(),
        depths=array(tree.depths)[row, slots].tolist(),
        logprobs=logprobs,
        scores=scores,
    )


def digest_features(features: torch.Tensor) -> str | None:
    """Of (R, 3E); None where the drafter wants none."""
    return digest_tensors(features) if features.numel() else None


def visible_in(mask: torch.Tensor) -> torch.Tensor:
    """What a mask lets a row see: where it adds nothing, or where it is boolean and set."""
    return mask if mask.dtype == torch.bool else mask == 0


def seen_by(given: ForwardInputs, row: int) -> NDArray[np.bool_]:
    """(P, S) what each slot of ``row`` was let see."""
    seen: NDArray[np.bool_] = array(visible_in(given.mask))[row, 0]
    return seen


def tensors_section(tensors: TreeTensors, row: int, given: ForwardInputs | None, digest: str | None) -> TensorsSection:
    """What the forward was given for one row, read from the very tensors; where it has not been given any yet, what was
    made for it. ``digest`` is that of what was made."""
    committed, slots = tensors.committed_lengths[row], tensors.padded_slots
    if given is None:
        rows, prefix = pack_rows(array(tensors.visible)[row]), [committed] * slots
    else:
        used = seen_by(given, row)
        # In a batch of unlike lengths there are columns behind the row's own: shown where something sees them.
        strays = bool(used[:, committed + slots :].any())
        rows = pack_rows(used[:, committed:] if strays else used[:, committed : committed + slots])
        prefix = used[:, :committed].sum(axis=1).tolist()
    return TensorsSection(
        committed_length=committed,
        num_slots=tensors.num_slots[row],
        padded_slots=slots,
        mask_rows=[packed.hex() for packed in rows],
        prefix_visible=prefix,
        positions=array((tensors if given is None else given).position_ids)[row].tolist(),
        token_ids=array((tensors if given is None else given).token_ids)[row].tolist(),
        index_tensors=index_tensors(tensors, row),
        input_digest=digest,
    )


def verify_section(tensors: TreeTensors, verification: Verification, row: int, level: TraceLevel) -> VerifySection:
    """What the teacher summed of one row, a slot at a time."""
    count = tensors.num_slots[row]
    logits = verification.logits[row, :count]
    nonfinite = _nonfinite_rows(verification.raw_logits[row, :count])  # a processor may well forbid a token by -inf
    summed = summary(logits, plain=not nonfinite and verification.logits is verification.raw_logits)
    scored = torch.log_softmax(wide(logits), dim=-1).topk(SCORES_TOP_K, dim=-1) if level != "decisions" else None
    return VerifySection(
        dispatch=dict(verification.dispatch),
        argmax=array(verification.argmax)[row, :count].tolist(),
        top_tokens=summed.best.tokens,
        top_logits=summed.best.logits,
        logsumexp=summed.logsumexp,
        entropy=summed.entropy,
        nonfinite_slots=nonfinite,
        logits_digest=digest_tensors(logits),
        input_digest=_digest_of_inputs(verification.inputs, tensors, row),
        feature_layers=list(verification.feature_layers) or None,
        target_tokens=scored.indices.tolist() if scored else None,
        target_logprobs=float_lists(list(array(scored.values))) if scored else None,
    )


def _digest_of_inputs(given: ForwardInputs, tensors: TreeTensors, row: int) -> str:
    """Of what one row's forward received: ids, positions, and which tree columns were seen."""
    committed = tensors.committed_lengths[row]
    used = torch.from_numpy(seen_by(given, row)[:, committed : committed + tensors.padded_slots])
    return digest_tensors(given.token_ids[row], given.position_ids[row], used)


def _nonfinite_rows(values: torch.Tensor) -> list[int]:
    """Rows that hold a value that is not finite. One such value makes the sum not finite, which is cheap to see."""
    if np.isfinite(array(values.sum())):
        return []
    rows: list[int] = (~torch.isfinite(values).all(dim=-1)).nonzero().flatten().tolist()
    return rows


def commit_section(result: StepResult) -> CommitSection:
    """What was moved where, with the checksums that prove it."""
    commit, content = result.commit, result.commit.content
    features = result.shared.verification.features[result.row, commit.source_slots]
    return CommitSection(
        strategy=commit.strategy,
        fallback=commit.fallback,
        committed_before=commit.committed_before,
        committed_after=commit.committed_after,
        source_slots=commit.source_slots,
        destination_rows=commit.destination_rows,
        source_checksums=content.source_checksums if content else None,
        written_checksums=content.written_checksums if content else None,
        prefix_layer=content.prefix_layer if content else None,
        prefix_before=content.prefix_before if content else None,
        prefix_after=content.prefix_after if content else None,
        kv_digests_before=content.kv_digests_before if content else None,
        kv_digests_after=content.kv_digests_after if content else None,
        features_digest=digest_features(features),
        drafter_before=result.shared.draft.kv_before[result.row],
        drafter_after=result.drafter_pairs,
    )
