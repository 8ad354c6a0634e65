"""A manifest in words, as people ask for it. Pure; every text is raw, and escaped by whoever puts it into markup."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from specscope.schemas import Manifest, TreePolicy
from specscope.tracer.words.rules import rule_text
from specscope.tracer.words.text import shorten
from specscope.viewer.drawing.fragments import Tone

#: Characters of one value; a manifest may hold a text of any length.
LONGEST = 200
#: What a manifest leaves open.
UNSAID = "not said"


class Peculiarity(NamedTuple):
    """One thing that sets a run apart from an honest one, recorded as it ran and read as it was written."""

    tone: Tone
    mark: str  # in few words
    title: str
    lines: tuple[str, ...]


def peculiarities(manifest: Manifest) -> list[Peculiarity]:
    """All that sets the run apart."""
    found = []
    if manifest.fault is not None:
        title = f"Fault {shorten(manifest.fault, 60)} was injected into this run"
        line = "It is wrong on purpose: what is violated here says nothing of an honest run."
        found.append(Peculiarity("warn", f"fault {shorten(manifest.fault, 40)} injected", title, (line,)))
    if manifest.replay_of is not None:
        of = f"Of the run {shorten(manifest.replay_of, 60)}."
        lines = (of, "Each step was run again from its recorded state.")
        found.append(Peculiarity("info", f"replay of {shorten(manifest.replay_of, 12)}", "This is a replay", lines))
    if manifest.redaction is not None:
        line = "Its token ids are those of a keyed permutation, and have no text."
        found.append(Peculiarity("info", "redacted", "This trace is redacted", (line,)))
    if manifest.original_schema is not None:
        line = f"Upgraded as it is read; written as {shorten(manifest.original_schema, 60)}."
        title = "This trace is of an older format"
        found.append(Peculiarity("info", "upgraded from an older format", title, (line,)))
    return found


def created_text(created: str) -> str:
    """When the run began, to the minute; as it stands where it is no time."""
    try:
        moment = datetime.fromisoformat(created)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return shorten(created, 30)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def tree_text(policy: TreePolicy) -> str:
    """How trees are grown: ``dynamic, depth 5, top-k 4, budget 16``."""
    if policy.kind == "none":
        return "no tree: the root alone"
    shape = f" {shorten(policy.name, 40)}" if policy.name else ""
    return f"{policy.kind}{shape}, depth {policy.depth}, top-k {policy.top_k}, budget {policy.budget}"


def teacher_text(manifest: Manifest) -> str:
    """Its name and shape: ``demo, LlamaForCausalLM, 10 layers of 256``."""
    teacher = manifest.teacher
    layers = f", {teacher.num_layers} layers" if teacher.num_layers is not None else ""
    width = f" of {teacher.hidden_size}" if layers and teacher.hidden_size is not None else ""
    return shorten(f"{teacher.name}, {teacher.architecture}{layers}{width}", 160)


def drafter_text(manifest: Manifest) -> str:
    """Its kind and name."""
    return shorten(f"{manifest.drafter.kind} {manifest.drafter.name or ''}".strip(), 80)


def device_text(manifest: Manifest) -> str:
    """Backend, name and threads."""
    device = manifest.device
    threads = f", threads: {device.num_threads}" if device.num_threads is not None else ""
    return shorten(f"{device.backend} {device.name}{threads}", 80)


def manifest_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """All that the manifest says; what it leaves open is named as such, for it cannot be judged."""
    entries = [
        *_origin_rows(manifest),
        ("mode", f"{manifest.mode}, attention {manifest.attention}, {manifest.dtype}"),
        ("device", device_text(manifest)),
        *_model_rows(manifest),
        ("tree", tree_text(manifest.tree_policy)),
        ("acceptance rule", rule_text(manifest.sampling)),
        ("processors", _processors_text(manifest)),
        ("stop rules", _stop_text(manifest)),
        ("cache strategy", _or_unsaid(manifest.cache_strategy)),
        ("batch", f"{manifest.batch_size or 1} at most, side by side"),
        ("seed", _or_unsaid(manifest.seed)),
        ("trace level", manifest.level),
        ("set apart by", "; ".join(one.mark for one in peculiarities(manifest)) or "nothing"),
        ("how it counts", "accepted length excludes root and bonus; tokens per step = accepted length + 1"),
    ]
    return [(name, shorten(value, LONGEST)) for name, value in entries]


def _origin_rows(manifest: Manifest) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        ("run", manifest.run_id),
        ("created", created_text(manifest.created)),
        ("engine", manifest.engine),
        ("versions", versions or UNSAID),
        ("format", manifest.schema_),
    ]


def _model_rows(manifest: Manifest) -> list[tuple[str, str]]:
    teacher, drafter, tokenizer = manifest.teacher, manifest.drafter, manifest.tokenizer
    digests = (
        ("teacher's digest", teacher.weights_digest),
        ("drafter's digest", drafter.weights_digest),
        ("tokenizer's digest", tokenizer.digest if tokenizer else None),
    )
    return [
        ("teacher", f"{teacher_text(manifest)}, {teacher.vocab_size} token ids"),
        ("drafter", drafter_text(manifest)),
        *((name, _or_unsaid(digest)) for name, digest in digests),
    ]


def _stop_text(manifest: Manifest) -> str:
    rules = manifest.stop_rules
    if rules is None:
        return UNSAID
    strings = f", {len(rules.stop_strings)} stop strings" if rules.stop_strings else ""
    return f"{rules.max_new_tokens} tokens at most, ends with {rules.eos_token_ids[:8]}{strings}"


def _processors_text(manifest: Manifest) -> str:
    processors = manifest.sampling.processors
    return UNSAID if processors is None else ", ".join(processors) or "none"


def _or_unsaid(value: str | int | None) -> str:
    return UNSAID if value is None else str(value)
