"""A manifest in words, in the order in which people ask. Pure; every text is raw."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from specscope.schemas import Manifest, TreePolicy
from specscope.tracer.naming.ranks import ranks_text
from specscope.tracer.naming.rules import rule_text
from specscope.tracer.naming.text import counted, shorten
from specscope.viewer.drawing.fragments import Tone

#: Characters of one value; a manifest may hold a text of any length.
LONGEST = 200
#: What a manifest leaves open.
UNSTATED = "not stated"


class Peculiarity(NamedTuple):
    """What sets a run apart from an ordinary one: a fault, a replay, redaction, an older format."""

    tone: Tone
    mark: str  # in few words
    title: str
    lines: tuple[str, ...]


def peculiarities(manifest: Manifest) -> list[Peculiarity]:
    """All that sets the run apart."""
    entries = []
    if manifest.fault is not None:
        title = f"Fault {shorten(manifest.fault, 60)} was injected into this run"
        line = "It is wrong on purpose: its violations say nothing about a correct run."
        entries.append(Peculiarity("warn", f"fault {shorten(manifest.fault, 40)} injected", title, (line,)))
    if manifest.replay_of is not None:
        original = f"It replays the run {shorten(manifest.replay_of, 60)}."
        lines = (original, "Each step was run again from its recorded state.")
        entries.append(Peculiarity("info", f"replay of {shorten(manifest.replay_of, 12)}", "This is a replay", lines))
    if manifest.redaction is not None:
        line = "Its token ids are permuted with a secret key, and have no text."
        entries.append(Peculiarity("info", "redacted", "This trace is redacted", (line,)))
    if manifest.original_schema is not None:
        line = f"It was written as {shorten(manifest.original_schema, 60)}, and is upgraded when it is read."
        title = "This trace is of an older format"
        entries.append(Peculiarity("info", "upgraded from an older format", title, (line,)))
    return entries


def created_text(created: str) -> str:
    """When the run began, to the minute; as it is recorded where that is not a time."""
    try:
        moment = datetime.fromisoformat(created)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return shorten(created, 30)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def tree_text(policy: TreePolicy) -> str:
    """How trees are grown: ``dynamic, depth 5, top-k 4, budget 16``."""
    if policy.kind == "none":
        return "no tree, only the root"
    shape = f" {shorten(policy.name, 40)}" if policy.name else ""
    if policy.shapes is not None:
        shape = f", one of {counted(len(policy.shapes.shapes), 'shape')} for each step"
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
    """All that the manifest states; what it leaves open is named as such, because it cannot be judged."""
    entries = [
        *_origin_rows(manifest),
        ("mode", f"{manifest.mode}, attention {_attention_text(manifest)}, {manifest.dtype}"),
        ("device", device_text(manifest)),
        *_model_rows(manifest),
        ("tree", tree_text(manifest.tree_policy)),
        ("acceptance rule", rule_text(manifest.sampling)),
        ("processors", _processors_text(manifest)),
        ("stop rules", _stop_text(manifest)),
        ("cache strategy", _or_unstated(manifest.cache_strategy)),
        ("ranks", "none" if manifest.tensor_parallel is None else ranks_text(manifest.tensor_parallel)),
        ("batch", f"at most {counted(manifest.batch_size or 1, 'row')} at a time"),
        ("seed", _or_unstated(manifest.seed)),
        ("trace level", manifest.level),
        ("set apart by", "; ".join(peculiarity.mark for peculiarity in peculiarities(manifest)) or "nothing"),
        ("how it counts", "accepted length excludes root and bonus token; tokens per step = accepted length + 1"),
    ]
    return [(name, shorten(value, LONGEST)) for name, value in entries]


def _attention_text(manifest: Manifest) -> str:
    """What was asked for, and where eager attention ran instead, that it did."""
    fell_back = manifest.kernel is not None and manifest.kernel.fell_back
    return f"{manifest.attention} (failed its self-check: eager ran)" if fell_back else manifest.attention


def _origin_rows(manifest: Manifest) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        ("run", manifest.run_id),
        ("created", created_text(manifest.created)),
        ("engine", manifest.engine),
        ("versions", versions or UNSTATED),
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
        *((name, _or_unstated(digest)) for name, digest in digests),
    ]


def _stop_text(manifest: Manifest) -> str:
    rules = manifest.stop_rules
    if rules is None:
        return UNSTATED
    strings = f", {len(rules.stop_strings)} stop strings" if rules.stop_strings else ""
    return f"at most {rules.max_new_tokens} tokens, ends with {rules.eos_token_ids[:8]}{strings}"


def _processors_text(manifest: Manifest) -> str:
    processors = manifest.sampling.processors
    return UNSTATED if processors is None else ", ".join(processors) or "none"


def _or_unstated(value: str | int | None) -> str:
    return UNSTATED if value is None else str(value)
