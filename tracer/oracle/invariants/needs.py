"""What an invariant needs of a record, and what a record does not have."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from specscope.schemas import Manifest, Step, TreeSection
from specscope.schemas.capabilities import is_known_capability
from specscope.tracer.oracle.invariants.base import Context, Invariant, present, promises
from specscope.tracer.oracle.invariants.structure import TreeArrays


def arrays_of(context: Context) -> TreeArrays | None:
    """The step's tree and tensors for the structural invariants; None where the writer left the tree out."""
    tree, tensors = context.step.tree, context.step.tensors
    if tree is None:
        return None
    if tensors is None:
        return _tree_alone(tree, context.manifest.teacher.vocab_size)
    return TreeArrays(
        tokens=tree.tokens,
        parents=tree.parents,
        depths=tree.depths,
        fed_tokens=tensors.token_ids,
        positions=tensors.positions,
        mask_rows=[int.from_bytes(bytes.fromhex(row), "little") for row in tensors.mask_rows],
        prefix_visible=tensors.prefix_visible,
        index_tensors=tensors.index_tensors,
        committed_length=tensors.committed_length,
        num_slots=tensors.num_slots,
        padded_slots=tensors.padded_slots,
        vocab_size=context.manifest.teacher.vocab_size,
    )


def _tree_alone(tree: TreeSection, vocab_size: int) -> TreeArrays:
    return TreeArrays(
        tokens=tree.tokens,
        parents=tree.parents,
        depths=tree.depths,
        fed_tokens=[],
        positions=[],
        mask_rows=[],
        prefix_visible=[],
        index_tensors={},
        committed_length=0,
        num_slots=len(tree.tokens),
        padded_slots=len(tree.tokens),
        vocab_size=vocab_size,
        has_tensors=False,
    )


#: How the reason begins where something is absent; its field follows.
NOT_RECORDED = "not recorded: "
#: What the context makes of records, of this step or of earlier ones, by the field that has to be recorded for it.
RECORDED_AS = {
    "features_digest": "commit.features_digest",
    "kept_cache": "draft.kv_digest_after",
    "found_prefixes": "commit.kv_digests_before",
    "left_prefixes": "commit.kv_digests_after",
    "table_before": "commit.blocks",
    "logits_of_trials": "accept.visited.cut",
    "appended": "stop.emitted",
    "text": "stop.emitted",
    "emitted_before": "stop.emitted",
    "path_before": "accept.path",
    "root_before": "accept.bonus_token",
    "committed_before": "commit.committed_after",
    "cached_before": "accept.path",
    "pairs_before": "draft.kv_after",
    "grammar_before": "guided.after",
    "put_out": "turn_end.output_ids",
    "counted": "turn_end.num_steps",
    "ids_as_decoded": "tree.tokens",  # others stand there where they are redacted
}
#: The same of a turn's first step, where it is another field.
RECORDED_AS_FIRST = {
    "features_digest": "prefill.features_digest",
    "left_prefixes": "prefill.prefix_digests",
    "table_before": "prefill.block_table",
    "grammar_before": "prefill.guided",
}
#: Of these, what the step before left.
FROM_BEFORE = RECORDED_AS.keys() - {"appended", "found_prefixes", "ids_as_decoded", "logits_of_trials", "text"}


def missing_need(context: Context, needs: tuple[str, ...]) -> str | None:
    """The first of ``needs`` that is absent, as the field that has to be recorded."""
    for need, of_context, parts in _places(needs):
        value: Any = context if of_context else context.step
        for part in parts:
            value = getattr(value, part, None)
        if value is None:
            return _absent_field(context, need)
    return None


class _Place(NamedTuple):
    """Where something that is needed stands."""

    need: str
    of_context: bool  # else it is a field of the step
    parts: tuple[str, ...]


@cache
def _places(needs: tuple[str, ...]) -> tuple[_Place, ...]:
    """Of each of them, worked out once: every step is asked for all of them."""
    return tuple(
        _Place(need, need in RECORDED_AS or need.startswith("manifest."), tuple(need.split("."))) for need in needs
    )


def _absent_field(context: Context, need: str) -> str:
    """The field that ``need`` lacks in this place."""
    if context.previous is None:
        return RECORDED_AS_FIRST.get(need, recorded_as(need))
    if need == "cached_before" and context.previous.tensors is None:
        return "tensors.committed_length"
    return recorded_as(need)


def recorded_as(need: str) -> str:
    """The field that has to be recorded for ``need``."""
    return RECORDED_AS.get(need, need)


@cache
def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def missing_field(record: Any, names: tuple[str, ...]) -> str | None:
    """The first of ``names``, dotted, that ``record`` does not have."""
    for name in names:
        value = record
        for part in _parts(name):
            value = getattr(value, part, None)
        if value is None:
            return name
    return None


def missing_draw(context: Context, invariant: Invariant[Context]) -> str | None:
    """The first field of a draw that is absent, where the writer never said that it supplies the whole section."""
    if context.rule == "greedy" or invariant.needs_if_drawn is None:
        return None
    need = "accept.drawn" if context.rule == "match" else invariant.needs_if_drawn
    if promises(context.manifest, need.partition(".")[0]):
        return None
    return missing_need(context, (need,)) or (_missing_trials(context) if need == "accept.visited" else None)


def _missing_trials(context: Context) -> str | None:
    """What is absent of the trials by which a walk that draws went on."""
    visited = present(present(context.step.accept).visited)
    if visited and all(visit.trials is None for visit in visited):
        return "accept.visited.trials"
    coins = [trial.coin for visit in visited for trial in visit.trials or []]
    lacks = context.rule in ("sampling", "block") and bool(coins) and all(coin is None for coin in coins)
    return "accept.visited.trials.coin" if lacks else None


def why_skipped(context: Context, invariant: Invariant[Any]) -> str:
    """Why the oracle did not judge a step by ``invariant``, in words."""
    if "text" in invariant.needs and context.text is None and context.step.stop is not None:
        return "it needs the whole turn, which specscope check reads"
    if context.previous_is_lost and not FROM_BEFORE.isdisjoint(invariant.needs):
        return "the step before it cannot be read"
    missing = missing_need(context, invariant.needs) or missing_draw(context, invariant)
    if missing is None and context.step.tree is None:
        missing = "tree"
    return f"{NOT_RECORDED}{missing}" if missing is not None else "the step's lists do not fit together"


def absent_promises(manifest: Manifest, step: Step) -> list[str]:
    """The capabilities that the format knows and the step does not have, in order."""
    absent = []
    for name in sorted({name for name in manifest.capabilities if is_known_capability(name)}):
        section, _, field = name.partition(".")
        value = getattr(step, section)
        if value is None or (field and getattr(value, field) is None):
            absent.append(name)
    return absent
