"""From the engine's tensors to the sections of a step's record: what is large is digested, what is discrete is kept."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import orjson
import torch

from specscope.engine.digests import digest_tensors
from specscope.engine.drafters.base import Draft
from specscope.engine.loop.phases import (
    Custody,
    ForwardInputs,
    StepResult,
    Verification,
)
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
from specscope.tracer.compare.roundings import is_half_epsilon

SCORES_TOP_K = 8
MOST_BEST = 16  # tokens of a slot that may be best
#: How far behind the best logit a token may lie and still be recorded, in roundings of the best one's size: a tie needs
#: two that moved, each by no more than one value may. In half formats that is soon a whole logit.
TIE_ROUNDINGS, HALF_TIE_ROUNDINGS = 128, 32


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


class BestTokens(NamedTuple):
    """The best tokens of each row of logits, best first, with their logits."""

    tokens: list[list[int]]
    logits: list[list[float]]


def best_tokens(logits: torch.Tensor) -> BestTokens:
    """Of ``logits`` (R, V): at least two, and all that lie so near the best that rounding may have put them first.
    Equal ones stand in the order of their ids."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top = wide.topk(min(MOST_BEST, wide.shape[1]), dim=-1)  # (R, K), equal ones in any order
    by_id = top.indices.sort(dim=-1)
    ranked = top.values.gather(1, by_id.indices).sort(dim=-1, descending=True, stable=True)
    best = ranked.values[:, :1]
    # A binade's numbers lie eps apart, times its lower end.
    epsilon = torch.finfo(logits.dtype).eps
    window = HALF_TIE_ROUNDINGS if is_half_epsilon(epsilon) else TIE_ROUNDINGS
    rounding = epsilon * torch.exp2(torch.floor(torch.log2(best.abs().clamp(min=1e-30))))
    near = (ranked.values >= best - window * rounding).sum(dim=1).clamp(min=min(2, wide.shape[1]))
    kept: list[int] = near.tolist()
    values = iter(floats(torch.cat([row[:count] for row, count in zip(ranked.values, kept, strict=True)])))
    tokens = by_id.values.gather(1, ranked.indices).tolist()
    return BestTokens(
        tokens=[row[:count] for row, count in zip(tokens, kept, strict=True)],
        logits=[list(islice(values, count)) for count in kept],
    )


def draft_section(draft: Draft, row: int, custody: Custody | None = None) -> DraftSection:
    """What the drafter was fed for one row and what it proposed, level by level."""
    pairs, levels = draft.pairs[row], draft.levels
    logprobs = iter(floats(torch.cat([level.logprobs[row].flatten() for level in levels])) if levels else ())
    totals = _all_rows(levels, row, "logsumexp")
    perturbed = _all_rows(levels, row, "perturbed")
    after = draft.kv_after[row]
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
        levels=None
        if levels is None
        else [
            DraftLevel(
                frontier=level.frontier[row].tolist(),
                positions=level.positions[row].tolist(),
                tokens=level.tokens[row].flatten().tolist(),
                logprobs=list(islice(logprobs, level.logprobs[row].numel())),
                finite=bool(level.all_finite[row]),
                logsumexp=_next_of(totals, level.logsumexp, row),
                perturbed=_next_of(perturbed, level.perturbed, row),
            )
            for level in levels
        ],
        num_candidates=draft.num_candidates[row],
        kv_digest_before=custody.before[row] if custody is not None else None,
        kv_digest_after=custody.after[row] if custody is not None else None,
    )


def _norms(features: torch.Tensor) -> list[float]:
    """Of each of (R, F). A half format would round the sum of its own numbers, and hide how far they are off."""
    return floats(torch.linalg.vector_norm(features, dim=-1, dtype=torch.promote_types(features.dtype, torch.float32)))


def _all_rows(levels: list[Level] | None, row: int, name: Literal["logsumexp", "perturbed"]) -> Iterator[float]:
    """One row's values of all levels that have them, in order: formatted in one go, because that is what costs."""
    values = [value[row].flatten() for level in levels or () if (value := getattr(level, name)) is not None]
    return iter(floats(torch.cat(values)) if values else ())


def _next_of(values: Iterator[float], like: torch.Tensor | None, row: int) -> list[float] | None:
    """As many of ``values`` as ``like`` has for ``row``; None where it is None."""
    return None if like is None else list(islice(values, like[row].numel()))


def tree_section(tree: DraftTree, row: int) -> TreeSection:
    """One row's tree in slots."""
    slots = slice(tree.num_slots[row])
    return TreeSection(
        tokens=tree.tokens[row, slots].tolist(),
        parents=tree.parents[row, slots].tolist(),
        depths=tree.depths[row, slots].tolist(),
        logprobs=floats(tree.logprobs[row, slots]),
        scores=floats(tree.scores[row, slots]),
    )


def digest_features(features: torch.Tensor) -> str | None:
    """Of (R, 3E); None where the drafter wants none."""
    return digest_tensors(features) if features.numel() else None


def visible_in(mask: torch.Tensor) -> torch.Tensor:
    """What a mask lets a row see: where it adds nothing, or where it is boolean and set."""
    return mask if mask.dtype == torch.bool else mask == 0


def tensors_section(tensors: TreeTensors, row: int, given: ForwardInputs | None, digest: str | None) -> TensorsSection:
    """What the forward was given for one row, read from the very tensors; where it has not been given any yet, what was
    made for it. ``digest`` is that of what was made."""
    committed, slots = tensors.committed_lengths[row], tensors.padded_slots
    if given is None:
        rows, prefix = pack_rows(tensors.visible[row]), [committed] * slots
    else:
        used = visible_in(given.mask[row, 0]).cpu()
        # In a batch of unlike lengths there are columns behind the row's own: shown where something sees them.
        strays = bool(used[:, committed + slots :].any())
        rows = pack_rows(used[:, committed:] if strays else used[:, committed : committed + slots])
        prefix = used[:, :committed].numpy().sum(axis=1).tolist()
    return TensorsSection(
        committed_length=committed,
        num_slots=tensors.num_slots[row],
        padded_slots=slots,
        mask_rows=[packed.hex() for packed in rows],
        prefix_visible=prefix,
        positions=(tensors if given is None else given).position_ids[row].tolist(),
        token_ids=(tensors if given is None else given).token_ids[row].tolist(),
        index_tensors=index_tensors(tensors, row),
        input_digest=digest,
    )


def verify_section(tensors: TreeTensors, verification: Verification, row: int, level: TraceLevel) -> VerifySection:
    """What the teacher said of one row, a slot at a time."""
    count, committed = tensors.num_slots[row], tensors.committed_lengths[row]
    logits = verification.logits[row, :count]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top, probs = wide.topk(1, dim=-1), wide.softmax(dim=-1)
    nonfinite = _nonfinite_rows(verification.raw_logits[row, :count])  # a processor may well forbid a token by -inf
    logsumexp = top.values[:, 0] - probs.gather(-1, top.indices)[:, 0].log()
    # H = lse - sum p x, in one pass; where a logit is infinite, 0 x inf must count as 0.
    plain = not nonfinite and verification.logits is verification.raw_logits
    entropy = logsumexp - torch.linalg.vecdot(probs, wide) if plain else torch.special.entr(probs).sum(dim=-1)
    nearly_best = best_tokens(logits)
    best = (wide - logsumexp[:, None]).topk(SCORES_TOP_K, dim=-1) if level != "decisions" else None
    given = verification.inputs
    used = visible_in(given.mask[row, 0, :, committed : committed + tensors.padded_slots])
    return VerifySection(
        dispatch=dict(verification.dispatch),
        argmax=verification.argmax[row, :count].tolist(),
        top_tokens=nearly_best.tokens,
        top_logits=nearly_best.logits,
        logsumexp=floats(logsumexp),
        entropy=floats(entropy),
        nonfinite_slots=nonfinite,
        logits_digest=digest_tensors(logits),
        input_digest=digest_tensors(given.token_ids[row], given.position_ids[row], used),
        feature_layers=list(verification.feature_layers) or None,
        target_tokens=best.indices.tolist() if best else None,
        target_logprobs=[floats(values) for values in best.values] if best else None,
    )


def _nonfinite_rows(values: torch.Tensor) -> list[int]:
    """Rows that hold a value that is not finite. One such value makes the sum not finite, which is cheap to see."""
    if bool(torch.isfinite(values.sum())):
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
        prefix_committed=content.prefix_committed if content else None,
        prefix_since=content.prefix_since if content else None,
        features_digest=digest_features(features),
        drafter_before=result.shared.draft.kv_before[result.row],
        drafter_after=result.drafter_pairs,
    )
