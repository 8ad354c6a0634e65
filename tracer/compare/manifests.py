"""The alignment proof: may these two runs be compared at all, and along which axis."""

from __future__ import annotations

from typing import Any, NamedTuple

from specscope.schemas import Manifest, Sampling, SchemaVersion
from specscope.tracer.rules import rule_name

#: Meant to differ; listed, not judged.
AXIS = ("mode", "attention", "device", "engine", "versions", "level", "fault", "cache_strategy", "batch_size")
#: Facts of one run alone.
OWN = (
    *("kind", "seq", "schema_", "original_schema", "run_id", "created", "capabilities", "replay_of"),
    *("teacher.source", "drafter.source"),
)
#: What writers before that version could not say: where only the newer of two runs says it, it proves nothing. What
#: they did not do is none of it: a trace that is not redacted is no match for one that is.
SAID_SINCE = {
    SchemaVersion(1, 1): (
        *(f"sampling.{name}" for name in ("lossless", "top_k", "top_p", "draft", "epsilon", "delta", "processors")),
        *("drafter.max_positions", "drafter.settings", "tree_policy.name", "tree_policy.choices"),
    )
}
#: What another engine's writer need not know of the same models: where only one of the two says it, it proves nothing.
NEED_NOT_KNOW = (
    *(f"teacher.{name}" for name in ("num_layers", "hidden_size")),
    *(
        f"{model}.{name}"
        for model in ("teacher", "drafter")
        for name in ("name", "config_digest", "weights_digest", "max_positions", "rope_theta", "rope_theta_source")
    ),
    *(f"drafter.{name}" for name in ("hidden_state_indices", "draft_vocab_size", "vocab_mapping", "settings")),
    *("tokenizer", "stop_rules", "seed", "cache_strategy", "tree_policy.name", "tree_policy.choices"),
    *("sampling.lossless",),
)
#: A baseline decodes without a drafter, so these follow from its mode; only their kind is worth a line.
FOLLOW_FROM_BASELINE = ("drafter", "tree_policy", "sampling.draft")


class ManifestComparison(NamedTuple):
    """Each entry reads ``field: baseline -> candidate``."""

    axis: list[str]
    incomparable: list[str]


def is_teacher_only(manifest: Manifest) -> bool:
    """Whether the run drafts nothing."""
    return manifest.drafter.kind == "none"


def both_draft(a: Manifest, b: Manifest) -> bool:
    """Whether the trees of two runs can be compared at all."""
    return not (is_teacher_only(a) or is_teacher_only(b))


def compare_manifests(a: Manifest, b: Manifest, allowed: frozenset[str]) -> ManifestComparison:
    """Sorts every difference into the axis of comparison and what makes the pair incomparable.

    ``allowed`` names fields, dotted, that the user lets differ; a name also covers what lies below it.
    """
    one_sided = is_teacher_only(a) != is_teacher_only(b)
    foreign = _writer(a) != _writer(b)
    axis, incomparable = [], []
    for name, got, wanted in _leaves(a.model_dump(by_alias=False), b.model_dump(by_alias=False), ""):
        parts = name.split(".")
        top = parts[0]
        follows = one_sided and (top in FOLLOW_FROM_BASELINE or name in FOLLOW_FROM_BASELINE)
        if top in OWN or name in OWN or (follows and parts[-1] != "kind"):
            continue
        line = f"{name}: {_shown(name, got)} -> {_shown(name, wanted)}"
        prefixes = {".".join(parts[: i + 1]) for i in range(len(parts))}
        unsaid = _could_not_say(a, name, got) or _could_not_say(b, name, wanted)
        unsaid = unsaid or (foreign and name in NEED_NOT_KNOW and None in (got, wanted))
        replayed = name == "dtype" and (a.replay_of is not None or b.replay_of is not None)
        if unsaid or follows or replayed or top in AXIS or prefixes & allowed:
            axis.append(line)
        else:
            incomparable.append(line)
    return ManifestComparison(axis, incomparable)


def _leaves(a: Any, b: Any, name: str) -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in sorted(a.keys() | b.keys()):
            found += _leaves(a.get(key), b.get(key), f"{name}.{key}" if name else key)
        return found
    return [(name, a, b)] if a != b else []


def _writer(manifest: Manifest) -> str:
    """The engine's name without its version."""
    return manifest.engine.partition(" ")[0]


def _could_not_say(manifest: Manifest, name: str, value: Any) -> bool:
    """Whether the run's version of the format had no place for what is absent here."""
    if value is not None:
        return False
    found = SchemaVersion.parse(manifest.schema_)
    return any(found < since and name in names for since, names in SAID_SINCE.items())


def _shown(name: str, value: Any) -> str:
    if name == "sampling.rule":
        return rule_name(Sampling(rule=value))
    return _short(value)


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
