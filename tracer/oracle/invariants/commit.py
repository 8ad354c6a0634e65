"""Invariants of the commit phase: what is moved in the cache, and what must stay."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import (
    Context,
    Invariant,
    committed_path,
    first_mismatch,
    present,
    promises,
)


def _length_equation(c: Context) -> str | None:
    commit = present(c.step.commit)
    forced = c.step.forced
    accepted = present(c.step.accept).accepted_length if forced is None else len(forced.path)
    wanted = commit.committed_before + 1 + accepted
    if commit.committed_after == wanted:
        return None
    terms = f"{commit.committed_before} committed + 1 root + {accepted} accepted"
    return f"committed after is {commit.committed_after}, wanted {wanted} = {terms}"


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


def _prefix_kept(c: Context) -> str | None:
    got, left = present(c.found_prefixes), present(c.left_prefixes)
    if got.keys() != left.keys():
        return f"digests of {len(left)} layers were left, and {len(got)} are here"
    changed = [layer for layer in got if got[layer] != left[layer]]
    if not changed:
        return None
    first = changed[0]
    return (
        f"the committed prefix of {_in_words(changed, len(got))} is not as it was left: "
        f"layer {first} had digest {left[first]}, and has {got[first]}"
    )


def _in_words(layers: list[int], num_layers: int) -> str:
    if len(layers) == num_layers > 1:
        return f"all {num_layers} layers"
    numbers = ", ".join(map(str, layers))
    return f"layer {numbers}" if len(layers) == 1 else f"layers {numbers}"


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
        id="commit.length-equation",
        statement="committed after = before + 1 + accepted length",
        check=_length_equation,
        needs=("commit", "accept"),
    ),
    Invariant(
        id="commit.strategy",
        statement="the strategy is the one asked for, or the reason for another is given",
        check=_strategy,
        needs=("commit", "manifest.cache_strategy"),
    ),
    Invariant(
        id="commit.sources-are-path",
        statement="the rows kept are the root's and the path's",
        check=_sources,
        needs=("commit", "accept"),
    ),
    Invariant(
        id="commit.destinations-contiguous",
        statement="they go right after the prefix",
        check=_destinations,
        needs=("commit",),
    ),
    Invariant(
        id="commit.content-moved",
        statement="the rows written equal their sources, bit for bit",
        check=_content_moved,
        needs=("commit.source_checksums", "commit.written_checksums"),
    ),
    Invariant(
        id="commit.prefix-unchanged",
        statement="the committed prefix is never written",
        check=_prefix_unchanged,
        needs=("commit.prefix_before", "commit.prefix_after"),
    ),
    Invariant(
        id="commit.prefix-kept",
        statement="in every layer digested, the committed prefix is as the step before, or the prefill, left it",
        check=_prefix_kept,
        needs=("found_prefixes", "left_prefixes"),
    ),
    Invariant(
        id="commit.drafter-length",
        statement="the drafter holds exactly the committed pairs",
        check=_drafter_length,
        needs=("commit.drafter_after",),
        across_steps=True,
    ),
)
