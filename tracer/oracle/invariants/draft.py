"""Invariants of the draft phase: what the drafter was fed, and what it proposed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from specscope.schemas import DraftLevel
from specscope.tracer.oracle.invariants.base import (
    Context,
    Invariant,
    first_mismatch,
    present,
    takes_features,
)
from specscope.tracer.oracle.invariants.selection import is_dynamic, passed_over
from specscope.tracer.oracle.invariants.shapes import is_chosen, shape_pays

#: Drafters that run a forward for each level, a position further on. Others may propose all levels in one.
LEVEL_BY_LEVEL = ("eagle3", "model", "early-exit")


def _scores_finite(c: Context) -> str | None:
    for number, level in enumerate(present(present(c.step.draft).levels), start=1):
        if level.finite and math.isfinite(sum(level.logprobs)):
            continue  # as nearly always
        # A token that was masked out has -inf, and its writer says that nothing went wrong.
        if not level.finite or any(math.isnan(value) or value == math.inf for value in level.logprobs):
            return f"level {number}: a draft score is not finite"
    return None


def _pair_positions(c: Context) -> str | None:
    draft = present(c.step.draft)
    inputs, before, after = present(draft.inputs), present(draft.kv_before), present(draft.kv_after)
    if after - before != len(inputs.positions):
        return f"{len(inputs.positions)} pairs took the cache from {before} to {after}"
    problem = first_mismatch(inputs.positions, list(range(before, after)), "pair")
    if problem is not None:
        return problem
    last = after - 1
    if c.manifest.drafter.names[0] not in LEVEL_BY_LEVEL and all(
        set(x.positions) <= {last} for x in draft.levels or []
    ):
        return None  # all levels come of one forward, that of the pairs
    for number, level in enumerate(draft.levels or []):
        position = last + number
        if any(p != position for p in level.positions):
            return f"level {number + 1}: got positions {level.positions[:8]}, wanted {position}"
    return None


def _pair_tokens(c: Context) -> str | None:
    return first_mismatch(present(present(c.step.draft).inputs).tokens, present(c.emitted_before), "pair")


def _source_rows(c: Context) -> str | None:
    rows = present(present(c.step.draft).inputs).source_rows
    if c.previous is None:
        return first_mismatch(rows, list(range(len(rows))), "pair")
    return first_mismatch(rows, [0, *present(c.path_before)], "pair")


def _cache_kept(c: Context) -> str | None:
    got, left = present(c.step.draft).kv_digest_before, present(c.kept_cache)
    if got == left:
        return None
    return f"the drafter's cache had digest {left} after the draft before, and has {got} at this step"


def _has_before(c: Context) -> bool:
    return c.previous is not None


def _is_fed_features(c: Context) -> bool:
    """Whether the drafter is fed features: it names the layers that they are of, or says what they were."""
    fed = c.step.draft.inputs if c.step.draft is not None else None
    return takes_features(c) or (fed is not None and fed.hidden_digest is not None)


def _are_committed(c: Context) -> str | None:
    fed, committed = present(present(c.step.draft).inputs).hidden_digest, present(c.features_digest)
    if fed == committed:
        return None
    where = "the prompt" if c.previous is None else "the step before"
    return f"the drafter was fed features {fed}, what {where} committed has {committed}"


def _fed_are_best(c: Context) -> str | None:
    columns, levels = c.columns, present(present(c.step.draft).levels)
    for number, after in enumerate(levels[1:], start=1):
        before = columns.distinct(columns.levels[number - 1])
        better = passed_over(c, before, set(after.frontier)) if _feeds_on(after, before) else None
        if better is not None:
            return f"level {number + 1} is fed on others than the best: {better}"
    return None


def _feeds_on(level: DraftLevel, above: Sequence[int]) -> bool:
    """Whether a level was fed candidates of the one before it alone."""
    return bool(level.frontier) and all(number in above for number in level.frontier)


DRAFT: tuple[Invariant[Context], ...] = (
    Invariant(
        id="draft.scores-finite",
        statement="every draft score is finite before any clean-up, or -inf where its token was masked out",
        check=_scores_finite,
        needs=("draft.levels",),
    ),
    Invariant(
        id="draft.positions",
        statement="pair positions count on from the cache; level d adds d",
        check=_pair_positions,
        needs=("draft.inputs", "draft.kv_before", "draft.kv_after"),
    ),
    Invariant(
        id="draft.pair-tokens",
        statement="the pairs' tokens are those last emitted",
        check=_pair_tokens,
        needs=("draft.inputs", "emitted_before"),
    ),
    Invariant(
        id="draft.source-rows",
        statement="the pairs' features come from the root and the accepted path",
        check=_source_rows,
        needs=("draft.inputs", "path_before"),
    ),
    Invariant(
        id="draft.cache-kept",
        statement="the drafter's cache is as the step before left it",
        check=_cache_kept,
        needs=("draft.kv_digest_before", "kept_cache"),
        applies=_has_before,
    ),
    Invariant(
        id="draft.features-are-committed",
        statement="the features fed are the teacher's own of what was committed",
        check=_are_committed,
        needs=("draft.inputs.hidden_digest", "features_digest"),
        applies=_is_fed_features,
    ),
    Invariant(
        id="draft.frontier-is-best",
        statement="a level of a dynamic tree is fed the best candidates of the level before",
        check=_fed_are_best,
        needs=("draft.levels",),
        applies=is_dynamic,
    ),
    Invariant(
        id="draft.shape-pays",
        statement=(
            "a step has the shape that promises the most tokens per second at its load, or that of the step before"
            " where none promises more by more than the hysteresis"
        ),
        check=shape_pays,
        needs=("shape",),
        applies=is_chosen,
    ),
)
