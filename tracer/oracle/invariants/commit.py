"""Invariants of the commit phase, on records."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import (
    Context,
    Invariant,
    committed_path,
    first_mismatch,
    present,
    promises,
)
from specscope.tracer.oracle.invariants.custody import PREFIX_KEPT


def _length_equation(c: Context) -> str | None:
    commit = present(c.step.commit)
    forced = c.step.forced
    accepted = present(c.step.accept).accepted_length if forced is None else len(forced.path)
    wanted = commit.committed_before + 1 + accepted
    if commit.committed_after == wanted:
        return None
    return f"committed after is {commit.committed_after}, wanted {wanted} = {commit.committed_before} + 1 + {accepted}"


def _continues(c: Context) -> str | None:
    commit = present(c.step.commit)
    if c.previous is None:
        wanted = len(c.turn.prompt_ids)
    elif c.previous.commit is not None:
        wanted = c.previous.commit.committed_after
    else:
        return None
    if commit.committed_before == wanted:
        return None
    return f"committed before is {commit.committed_before}, the last step left {wanted}"


def _strategy(c: Context) -> str | None:
    commit, asked = present(c.step.commit), present(c.manifest.cache_strategy)
    if commit.strategy == asked or commit.fallback or not promises(c.manifest, "commit"):
        return None
    return f"{commit.strategy} was done, asked for was {asked}, and no fallback is named"


def _sources(c: Context) -> str | None:
    if c.step.forced is None and c.manifest.replay_of is not None:
        return "a replay's step does not say which path was forced"
    if c.step.forced is not None and c.manifest.replay_of is None:
        return "a path was forced, and the run is no replay"
    return first_mismatch(present(c.step.commit).source_slots, [0, *present(committed_path(c.step))], "source")


def _destinations(c: Context) -> str | None:
    commit = present(c.step.commit)
    wanted = [commit.committed_before + i for i in range(len(commit.source_slots))]
    return first_mismatch(commit.destination_rows, wanted, "destination")


def _content_moved(c: Context) -> str | None:
    commit = present(c.step.commit)
    before, after = commit.source_checksums or [], commit.written_checksums or []
    for layer, (source, written) in enumerate(zip(before, after, strict=False)):
        if source != written:
            return f"layer {layer}: the rows written ({written}) are not the sources ({source})"
    return None if len(before) == len(after) else f"checksums of {len(before)} and {len(after)} layers"


def _prefix_unchanged(c: Context) -> str | None:
    commit = present(c.step.commit)
    if commit.prefix_before == commit.prefix_after:
        return None
    return f"layer {commit.prefix_layer}: {commit.prefix_before} became {commit.prefix_after}"


def _drafter_length(c: Context) -> str | None:
    commit = present(c.step.commit)
    before = c.step.draft.kv_before if c.step.draft is not None else commit.drafter_before
    if None not in (commit.drafter_before, before) and commit.drafter_before != before:
        return f"the drafter held {commit.drafter_before} pairs, the draft phase says {before}"
    if commit.drafter_after == commit.committed_before:
        return None
    return f"the drafter holds {commit.drafter_after} pairs, wanted {commit.committed_before}, the committed length"


COMMIT: tuple[Invariant[Context], ...] = (
    Invariant(
        "commit.length-equation",
        "committed after = before + 1 + accepted length",
        _length_equation,
        ("commit", "accept"),
    ),
    Invariant(
        "commit.strategy",
        "the strategy is the one asked for, or the reason for another is given",
        _strategy,
        ("commit", "manifest.cache_strategy"),
    ),
    Invariant("commit.sources-are-path", "the rows kept are the root's and the path's", _sources, ("commit", "accept")),
    Invariant("commit.destinations-contiguous", "they go right behind the prefix", _destinations, ("commit",)),
    Invariant(
        "commit.content-moved",
        "the rows written equal their sources, bit for bit",
        _content_moved,
        ("commit.source_checksums", "commit.written_checksums"),
    ),
    Invariant(
        "commit.prefix-unchanged",
        "the committed prefix is never written",
        _prefix_unchanged,
        ("commit.prefix_before", "commit.prefix_after"),
    ),
    *PREFIX_KEPT,
    Invariant(
        "commit.drafter-length",
        "the drafter holds the committed pairs alone",
        _drafter_length,
        ("commit.drafter_after",),
    ),
    Invariant("sequence.committed-continues", "each step begins where the last one ended", _continues, ("commit",)),
)
