"""The alignment proof: may these two runs be compared at all, and along which axis."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from specscope.schemas import Drafter, Manifest, Sampling, SchemaVersion, Teacher, TreePolicy
from specscope.tracer.naming.rules import rule_name
from specscope.tracer.naming.text import counted, shorten, visible

MAX_CASE = 80

#: Meant to differ; listed, not judged.
AXIS = (
    "mode",
    "attention",
    "graph",
    "products",
    "device",
    "engine",
    "versions",
    "level",
    "fault",
    "cache_strategy",
    "cache",
    "block_size",
    "batch_size",
    "arrivals_clock",
    "pipeline",
    "tensor_parallel",
    "grammar.library",
)
#: Facts of one run alone.
OWN = (
    *("kind", "seq", "schema_", "original_schema", "run_id", "created", "capabilities", "replay_of"),
    *("teacher.source", "drafter.source"),
    "not_known",
    "kernel",  # its name stands in attention; of a kernel that did not run there is a remark
)
#: Names that engines write in their own way: LlamaForCausalLM and llama, EAGLE-3 and eagle3.
NAMED_FREELY = ("teacher.architecture", "drafter.kind")
#: Compared by themselves, by ``loaded_otherwise``.
LOADED = ("teacher.parameters", "drafter.parameters")
#: A drafter with quantised weights drafts otherwise; one that does not say whether its own are may be another.
QUANTIZED_DRAFTS, UNQUANTIZED = "drafter.quantization", "none"
#: Absent is not recorded, and proves nothing, but for these: what their absence says.
SAID_BY_ABSENCE: dict[str, Any] = {
    "sampling.temperature": 1.0,
    "sampling.top_k": "all",
    "sampling.top_p": "all",
    "redaction": "none",
    "grammar": "none",
    "pipeline": "one process",
    "tensor_parallel": "one process",
}
#: What writers before that version could not say: there absence says nothing of these either.
SAID_SINCE = {
    SchemaVersion(1, 1): ("sampling.temperature", "sampling.top_k", "sampling.top_p"),
    SchemaVersion(1, 4): ("grammar",),
}
#: Where a run's steps have no drafted trees, these follow; only their kind is worth a line.
FOLLOW_FROM_TREELESS = ("drafter", "tree_policy", "sampling.draft")


class ManifestComparison(NamedTuple):
    """Each entry reads ``field: baseline -> candidate``."""

    axis: list[str]
    incomparable: list[str]
    let: list[str]  # names of the fields that differ, and may since the user lets them


def is_teacher_only(manifest: Manifest) -> bool:
    """Whether the run drafts nothing."""
    return manifest.drafter.kind == "none"


def has_trees(manifest: Manifest) -> bool:
    """Whether the run's steps may have drafted nodes. Those of a pipeline have none: its drafts are compared with the
    tokens that its last stage verified, and are recorded apart."""
    return not is_teacher_only(manifest) and manifest.pipeline is None


def both_draft(a: Manifest, b: Manifest) -> bool:
    """Whether the trees of two runs can be compared at all."""
    return has_trees(a) and has_trees(b)


def trees_alike(a: Manifest, b: Manifest) -> bool:
    """Whether the trees of two runs are meant to be equal: drafted ones on both sides, or a pipeline's steps beside
    others that are the root alone."""
    neither = not has_trees(a) and not has_trees(b)
    return both_draft(a, b) or (neither and (a.pipeline is not None or b.pipeline is not None))


def same_exit_head(a: Manifest, b: Manifest) -> bool:
    """Whether two pipelines draft by one exit head after the same layer."""
    if a.pipeline is None or b.pipeline is None:
        return False
    heads = [(m.drafter.kind, m.drafter.name, m.drafter.weights_digest, m.dtype) for m in (a, b)]
    return heads[0] == heads[1] and a.pipeline.exit_layer == b.pipeline.exit_layer


def compare_manifests(a: Manifest, b: Manifest, allowed: frozenset[str]) -> ManifestComparison:
    """Sorts every difference into the axis of comparison and what makes the pair incomparable.

    ``allowed`` names fields, dotted, that the user lets differ; a name also covers what lies below it.
    """
    treeless = not both_draft(a, b)
    for_people = _names_prove_nothing(a, b)
    axis, incomparable, let = [], [], []
    for name, of_a, of_b in _leaves(a.model_dump(by_alias=False), b.model_dump(by_alias=False), ""):
        parts = name.split(".")
        top = parts[0]
        follows = treeless and (top in FOLLOW_FROM_TREELESS or name in FOLLOW_FROM_TREELESS)
        if top in OWN or name in OWN or ".".join(parts[:2]) in LOADED or (follows and parts[-1] != "kind"):
            continue
        if name == "block_size" and "dense" in (a.cache, b.cache):  # which has none: the line of the cache says it
            continue
        got, wanted = of_a if a.knows(name) else None, of_b if b.knows(name) else None
        unsaid = (_says_nothing(a, name, got) or _says_nothing(b, name, wanted)) and not (
            name == QUANTIZED_DRAFTS and {got, wanted} - {None, UNQUANTIZED}
        )
        if (got is None and wanted is None) or (not unsaid and _meant(name, got) == _meant(name, wanted)):
            continue
        line = f"{name}: {_shown(name, got)} -> {_shown(name, wanted)}"
        replayed = name == "dtype" and (a.replay_of is not None or b.replay_of is not None)
        if is_allowed(name, allowed) and not unsaid:
            let.append(name)
        meant = follows or replayed or top in AXIS or name in AXIS or is_allowed(name, allowed)
        if unsaid or meant or name in for_people:
            axis.append(line)
        else:
            incomparable.append(line)
    return ManifestComparison(axis, incomparable, let)


def same_teacher(a: Manifest, b: Manifest) -> bool | None:
    """Whether two runs have the same weights of a teacher; None where a side does not identify them."""
    ours, theirs = a.teacher.weights_digest, b.teacher.weights_digest
    return None if ours is None or theirs is None else ours == theirs


def name_remarks(a: Manifest, b: Manifest) -> list[str]:
    """That two teachers have other names, and nothing tells whether they are one model."""
    known = a.knows("teacher.name") and b.knows("teacher.name")
    if not known or a.teacher.name == b.teacher.name or same_teacher(a, b) is not None:
        return []
    ours, theirs = (shorten(visible(manifest.teacher.name), MAX_CASE) for manifest in (a, b))
    return [
        f"the teachers' names differ ({ours} -> {theirs}), and only a digest of the weights on both sides "
        "(teacher.weights_digest) could tell whether they are one model"
    ]


def fallback_remarks(a: Manifest, b: Manifest) -> list[str]:
    """Which side ran the eager attention although a kernel was asked for: nothing is learnt of that kernel."""
    remarks = []
    for side, manifest in (("baseline", a), ("candidate", b)):
        kernel = manifest.kernel
        if kernel is None or kernel.self_check is None or not kernel.fell_back:
            continue
        case = shorten(visible((kernel.self_check.failed_cases or ["unknown"])[0]), MAX_CASE)
        remarks.append(
            f"the {side} asked for attention {shorten(visible(kernel.name), MAX_CASE)} and ran the eager one: its "
            f"self-check failed in the case {case!r}; record it with --no-self-check to judge the kernel"
        )
    return remarks


def loaded_otherwise(a: Manifest, b: Manifest) -> list[str]:
    """Parameters that hold other values on the two sides, although the files that they were loaded from are the same.

    Nothing where a side does not record them, loaded them in another dtype, or quantised them otherwise.
    """
    if a.dtype != b.dtype:
        return []
    models: tuple[tuple[str, Teacher | Drafter, Teacher | Drafter], ...] = (
        ("teacher", a.teacher, b.teacher),
        ("drafter", a.drafter, b.drafter),
    )
    return [
        line
        for name, of_a, of_b in models
        if of_a.quantization == of_b.quantization
        for line in _loaded(name, of_a, of_b)
    ]


def _loaded(name: str, a: Teacher | Drafter, b: Teacher | Drafter) -> list[str]:
    if a.weights_digest is None or a.weights_digest != b.weights_digest:
        return []
    ours, theirs = a.parameters or {}, b.parameters or {}
    return [
        f"{name} {parameter}"
        for parameter in sorted(ours.keys() & theirs.keys())
        if ours[parameter] != theirs[parameter]
    ]


def is_allowed(name: str, allowed: frozenset[str]) -> bool:
    """Whether the field ``name``, or one that it lies below, is among those that may differ."""
    parts = name.split(".")
    return any(".".join(parts[: at + 1]) in allowed for at in range(len(parts)))


def same_policy(a: TreePolicy, b: TreePolicy) -> bool:
    """Whether two policies allow the same trees, by all that both say: a name is one for people where the choices
    themselves are known."""
    if (a.kind, a.depth, a.top_k, a.budget) != (b.kind, b.depth, b.top_k, b.budget):
        return False
    if (a.costs, a.shapes) != (b.costs, b.shapes):
        return False
    if a.choices is not None and b.choices is not None:
        return sorted(a.choices) == sorted(b.choices)
    return a.name is None or b.name is None or a.name == b.name


def _names_prove_nothing(a: Manifest, b: Manifest) -> set[str]:
    """The names for people that may differ, since what they name is known to be the same, or is known by its digests
    alone: what one engine calls its teacher, another one need not (``name_remarks``)."""
    models = (
        ("teacher", a.teacher.weights_digest, b.teacher.weights_digest),
        ("drafter", a.drafter.weights_digest, b.drafter.weights_digest),
    )
    names = {f"{name}.name" for name, of_a, of_b in models if of_a is not None and of_a == of_b}
    names |= {"teacher.name", "teacher.architecture"} if same_teacher(a, b) else {"teacher.name"}
    if a.tree_policy.choices is not None and same_policy(a.tree_policy, b.tree_policy):
        names.add("tree_policy.name")
    return names


def _leaves(a: Any, b: Any, name: str) -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        leaves = []
        for key in sorted(a.keys() | b.keys()):
            leaves += _leaves(a.get(key), b.get(key), f"{name}.{key}" if name else key)
        return leaves
    return [(name, a, b)] if a != b else []


def _says_nothing(manifest: Manifest, name: str, value: Any) -> bool:
    """Whether ``value`` is absent and its absence says nothing of the run."""
    if value is not None or name.startswith("sampling.processors."):
        return False
    if not manifest.knows(name) or name not in SAID_BY_ABSENCE:
        return True
    version = SchemaVersion.parse(manifest.schema_)
    return any(version < since and name in names for since, names in SAID_SINCE.items())


def _meant(name: str, value: Any) -> Any:
    """The value, or what its absence says. Of stages only the layers count: clocks and hops are never the same."""
    if name == "pipeline.stages" and value is not None:
        return [(stage["first_layer"], stage["last_layer"]) for stage in value]
    if name in NAMED_FREELY and value is not None:
        plain = re.sub(r"[\s_-]", "", str(value).casefold())
        return re.sub(r"(?<=.)(forcausallm|lmheadmodel)$", "", plain) or value
    return SAID_BY_ABSENCE.get(name) if value is None else value


def _shown(name: str, value: Any) -> str:
    if name == "sampling.rule" and value is not None:
        return rule_name(Sampling(rule=value))
    if name in ("pipeline", "pipeline.stages") and value is not None:
        stages = value["stages"] if name == "pipeline" else value
        return counted(len(stages), "stage")
    if name == "tensor_parallel" and value is not None:
        return counted(value["world_size"], "rank")
    if value is None and name in ("pipeline", "tensor_parallel"):
        return str(SAID_BY_ABSENCE[name])
    return _short(value)


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
