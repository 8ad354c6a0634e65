"""Invariants of custody: what was committed is found again, in the teacher's cache and the drafter's, at a later step.

A step checks its own commit; what is written over between two steps shows only where a digest is held against the one
that was taken before. Digests of one layer a step, in turn: a fault in another is found when its turn comes.
"""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, present


def _cache_kept(c: Context) -> str | None:
    found, left = present(c.step.draft).kv_digest_before, present(c.kept_cache)
    if found == left:
        return None
    return f"the drafter's cache had digest {left} behind the draft before, and has {found} at this step"


def _prefix_kept(c: Context) -> str | None:
    commit, left = present(c.step.commit), present(c.kept_prefix)
    if commit.prefix_since == left:
        return None
    return (
        f"layer {commit.prefix_layer}: the committed prefix had digest {left} when it was looked at last, and the same "
        f"rows have {commit.prefix_since} now"
    )


def _has_before(c: Context) -> bool:
    return c.previous is not None


CACHE_KEPT: tuple[Invariant[Context], ...] = (
    Invariant(
        "draft.cache-kept",
        "the drafter's cache is as the step before left it",
        _cache_kept,
        ("draft.kv_digest_before", "kept_cache"),
        _has_before,
    ),
)
PREFIX_KEPT: tuple[Invariant[Context], ...] = (
    Invariant(
        "commit.prefix-kept",
        "a layer's committed prefix is as it was when its turn came last, or as the prefill left it",
        _prefix_kept,
        ("commit.prefix_since", "kept_prefix"),
    ),
)
