"""The alignment proof: may these two runs be compared at all, and along which axis."""

from __future__ import annotations

from typing import Any, NamedTuple

from specscope.schemas import Manifest

#: Meant to differ; listed, not judged.
AXIS = ("mode", "attention", "device", "engine", "versions", "level", "fault")
#: Facts of one run alone.
OWN = ("kind", "seq", "schema_", "run_id", "created", "capabilities")
#: A baseline decodes without a drafter, so these follow from its mode; only their kind is worth a line.
FOLLOW_FROM_BASELINE = ("drafter", "tree_policy")


class ManifestComparison(NamedTuple):
    """Each entry reads ``field: baseline -> candidate``."""

    axis: list[str]
    incomparable: list[str]


def is_teacher_only(manifest: Manifest) -> bool:
    """Whether the run drafts nothing."""
    return manifest.drafter.kind == "none"


def compare_manifests(a: Manifest, b: Manifest, allowed: frozenset[str]) -> ManifestComparison:
    """Sorts every difference into the axis of comparison and what makes the pair incomparable.

    ``allowed`` names fields, dotted, that the user lets differ; a name also covers what lies below it.
    """
    one_sided = is_teacher_only(a) != is_teacher_only(b)
    axis, incomparable = [], []
    for name, got, wanted in _leaves(a.model_dump(by_alias=False), b.model_dump(by_alias=False), ""):
        parts = name.split(".")
        top = parts[0]
        if top in OWN or (one_sided and top in FOLLOW_FROM_BASELINE and parts[-1] != "kind"):
            continue
        line = f"{name}: {_short(got)} -> {_short(wanted)}"
        prefixes = {".".join(parts[: i + 1]) for i in range(len(parts))}
        if top in AXIS or prefixes & allowed or (one_sided and top in FOLLOW_FROM_BASELINE):
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


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
