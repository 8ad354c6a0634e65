"""From the engine's tensors to the sections of a step's record: what is large is digested, what is discrete is kept.

The tensors lie on the host (see ``host.on_host``); they are read as arrays, since a slice of an array costs less
than one of a tensor.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.backends.windows import visible_in
from specscope.engine.cache.blocks import BlockNote
from specscope.engine.cache.custody import as_digest, as_digests
from specscope.engine.digests import digest_tensors
from specscope.engine.drafters.base import Draft
from specscope.engine.loop.phases import Custody, ForwardInputs, GraphUse, StepResult, Verification
from specscope.engine.record.best import summary, wide
from specscope.engine.record.host import array, float_lists, floats
from specscope.engine.tree.checks import index_tensors
from specscope.engine.tree.grow import DraftTree, Level, Proposers
from specscope.engine.tree.tensors import TreeTensors
from specscope.schemas import (
    BlocksSection,
    CommitSection,
    DraftInputs,
    DraftLevel,
    DraftSection,
    GraphReplay,
    SharedBlock,
    SlidingWindow,
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


_SCORES = ("logprobs", "logsumexp", "perturbed")


def _levels(levels: list[Level], row: int) -> list[DraftLevel]:
    """Of one row."""
    # A level's log-probabilities, and what else it has of its scores: all in one go.
    scores = {
        (number, name): array(values)[row]
        for number, level in enumerate(levels)
        for name, values in zip(_SCORES, (level.logprobs, level.logsumexp, level.perturbed), strict=True)
        if values is not None
    }
    lists = dict(zip(scores, float_lists(list(scores.values())), strict=True))
    return [
        DraftLevel(
            frontier=array(level.frontier)[row].tolist(),
            positions=array(level.positions)[row].tolist(),
            tokens=array(level.tokens)[row].ravel().tolist(),
            logprobs=lists[number, "logprobs"],
            finite=bool(array(level.all_finite)[row]),
            logsumexp=lists.get((number, "logsumexp")),
            perturbed=lists.get((number, "perturbed")),
        )
        for number, level in enumerate(levels)
    ]


def _whole_digest(sums: torch.Tensor | None) -> str | None:
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
        proposed_by=None if tree.proposers is None else _named(tree.proposers, array(tree.proposers.bits)[row, slots]),
    )


def _named(proposers: Proposers, bits: NDArray[np.int64]) -> list[str]:
    """Per slot, the names of those that proposed it."""
    names = {
        value: "+".join(name for bit, name in enumerate(proposers.names) if value >> bit & 1)
        for value in range(1 << len(proposers.names))
    }
    return [names[value] for value in bits.tolist()]


def digest_features(features: torch.Tensor) -> str | None:
    """Of (R, 3E); None where the drafter wants none."""
    return digest_tensors(features) if features.numel() else None


def seen_by(given: ForwardInputs, row: int) -> NDArray[np.bool_]:
    """(P, S) what each slot of ``row`` was let see."""
    mask = array(given.mask)[row, 0]
    seen: NDArray[np.bool_] = mask if mask.dtype == np.bool_ else mask == 0
    return seen


def tensors_section(tensors: TreeTensors, row: int, given: ForwardInputs | None, digest: str | None) -> TensorsSection:
    """What the forward was given for one row, read from the very tensors; where it has not been given any yet, what was
    made for it. ``digest`` is that of what was made."""
    committed, slots = tensors.committed_lengths[row], tensors.padded_slots
    if given is None:
        seen, prefix = array(tensors.visible)[row], [committed] * slots
    else:
        used = seen_by(given, row)
        # In a batch of unlike lengths there are columns behind the row's own: shown where something sees them.
        strays = bool(used[:, committed + slots :].any())
        seen = used[:, committed:] if strays else used[:, committed : committed + slots]
        prefix = used[:, :committed].sum(axis=1).tolist()
    return TensorsSection(
        committed_length=committed,
        num_slots=tensors.num_slots[row],
        padded_slots=slots,
        mask_rows=_hex_rows(seen),
        prefix_visible=prefix,
        positions=array((tensors if given is None else given).position_ids)[row].tolist(),
        token_ids=array((tensors if given is None else given).token_ids)[row].tolist(),
        index_tensors=index_tensors(tensors, row),
        input_digest=digest,
    )


def _hex_rows(visible: NDArray[np.bool_]) -> list[str]:
    """``visible`` (P, W) as ``pack_rows`` packs it, in hexadecimal."""
    packed = np.packbits(visible, axis=1, bitorder="little")
    text, width = packed.tobytes().hex(), 2 * packed.shape[1]
    return [text[start : start + width] for start in range(0, len(text), width)]


def verify_section(
    tensors: TreeTensors,
    verification: Verification,
    row: int,
    level: TraceLevel,
    block_table: list[int] | None = None,
) -> VerifySection:
    """What the teacher summed of one row, a slot at a time; ``block_table`` is what the forward read its prefix by."""
    count = tensors.num_slots[row]
    logits = verification.logits[row, :count]
    nonfinite = _nonfinite_rows(verification.raw_logits[row, :count])  # a processor may well forbid a token by -inf
    summed = summary(logits, plain=not nonfinite and verification.logits is verification.raw_logits)
    scored = torch.log_softmax(wide(logits), dim=-1).topk(SCORES_TOP_K, dim=-1) if level != "decisions" else None
    return VerifySection(
        dispatch=dict(verification.dispatch),
        graph=_graph_replay(verification.graph, row),
        windows=_windows(tensors, verification, row),
        block_table=block_table,
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


def _windows(tensors: TreeTensors, verification: Verification, row: int) -> list[SlidingWindow] | None:
    """What one row's slots saw in layers with a sliding window; None where the teacher has none."""
    if verification.windows is None:
        return None
    committed, count = tensors.committed_lengths[row], tensors.num_slots[row]
    fed = array(verification.inputs.position_ids)[row]
    layers: dict[int, list[int]] = {}
    masks = {note.size: note.mask for note in verification.windows}
    for note in verification.windows:
        layers.setdefault(note.size, []).append(note.layer)
    windows = []
    for size, mask in sorted(masks.items()):
        seen = array(visible_in(mask[row if mask.shape[0] > 1 else 0, 0, :count]))[:, : committed + len(fed)]
        positions = np.concatenate([np.arange(committed), fed])[: seen.shape[1]]
        # What sees nothing has no lowest position: its own stands there, with a count of 0.
        lowest = np.where(seen, positions, np.iinfo(np.int64).max).min(axis=1)
        windows.append(
            SlidingWindow(
                size=size,
                layers=layers[size],
                first_positions=np.minimum(lowest, fed[:count]).tolist(),
                num_seen=seen.sum(axis=1).tolist(),
            )
        )
    return windows


def _graph_replay(use: GraphUse | None, row: int) -> GraphReplay | None:
    if use is None:
        return None
    return GraphReplay(
        slots=use.num_slots,
        columns=use.num_columns,
        replays=use.replays,
        committed_length=None if use.lengths is None else int(array(use.lengths)[row]),
        fallback=use.fallback,
    )


def _digest_of_inputs(given: ForwardInputs, tensors: TreeTensors, row: int) -> str:
    """Of what one row's forward received: ids, positions, and which tree columns were seen."""
    committed = tensors.committed_lengths[row]
    used = seen_by(given, row)[:, committed : committed + tensors.padded_slots]
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
    before = as_digests(content.prefix) if content else None
    return CommitSection(
        strategy=commit.strategy,
        fallback=commit.fallback,
        committed_before=commit.committed_before,
        committed_after=commit.committed_after,
        source_slots=commit.source_slots,
        destination_rows=commit.destination_rows,
        source_checksums=as_digests(content.sources) if content else None,
        written_checksums=as_digests(content.written) if content else None,
        prefix_layer=content.prefix_layer if content else None,
        prefix_before=before[content.prefix_layer] if content and before else None,
        prefix_after=as_digests(content.prefix_after)[0] if content else None,
        kv_digests_before=before,
        kv_digests_after=as_digests(content.prefix + content.written) if content else None,
        features_digest=digest_features(features),
        blocks=None if result.blocks is None else _blocks_section(result.blocks),
        drafter_before=result.shared.draft.kv_before[result.row],
        drafter_after=result.drafter_pairs,
    )


def _blocks_section(note: BlockNote) -> BlocksSection:
    shared = [SharedBlock(**block._asdict()) for block in note.shared]
    counted = {name: value for name, value in note._asdict().items() if name not in ("read", "shared")}
    return BlocksSection(**counted, shared=shared or None)
