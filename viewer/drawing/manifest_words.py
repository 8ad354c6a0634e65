"""A manifest in words, as people ask for it. Pure; every text is raw, and escaped by whoever puts it into markup."""

from __future__ import annotations

from datetime import UTC, datetime

from specscope.schemas import Manifest, TreePolicy
from specscope.tracer.rules import rule_text
from specscope.tracer.text import shorten

#: Characters of one value; a manifest may hold a text of any length.
LONGEST = 200


def size_text(num_bytes: int) -> str:
    """A size for people, in powers of 1,000: ``228 kB``, ``1.2 GB``."""
    amount, unit = float(num_bytes), "bytes"
    for bigger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, bigger
    return f"{num_bytes:,} bytes" if unit == "bytes" else f"{amount:.{1 if amount < 9.95 else 0}f} {unit}"


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
        ("processors", ", ".join(manifest.sampling.processors or {}) or "none"),
        ("stop rules", _stop_text(manifest)),
        ("cache strategy", _or_unsaid(manifest.cache_strategy)),
        ("batch", f"{manifest.batch_size or 1} at most, side by side"),
        ("seed", _or_unsaid(manifest.seed)),
        ("trace level", manifest.level),
        ("how it counts", "accepted length excludes root and bonus; tokens per step = accepted length + 1"),
    ]
    return [(name, shorten(value, LONGEST)) for name, value in entries]


def _origin_rows(manifest: Manifest) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        ("run", manifest.run_id),
        ("created", created_text(manifest.created)),
        ("engine", manifest.engine),
        ("versions", versions or "not said"),
        ("format", manifest.schema_),
    ]


def _model_rows(manifest: Manifest) -> list[tuple[str, str]]:
    teacher, drafter, tokenizer = manifest.teacher, manifest.drafter, manifest.tokenizer
    layers = f", {teacher.num_layers} layers" if teacher.num_layers is not None else ""
    width = f" of {teacher.hidden_size}" if layers and teacher.hidden_size is not None else ""
    digests = (
        ("teacher's digest", teacher.weights_digest),
        ("drafter's digest", drafter.weights_digest),
        ("tokenizer's digest", tokenizer.digest if tokenizer else None),
    )
    return [
        ("teacher", f"{teacher.name}, {teacher.architecture}{layers}{width}, {teacher.vocab_size} token ids"),
        ("drafter", drafter_text(manifest)),
        *((name, _or_unsaid(digest)) for name, digest in digests),
    ]


def _stop_text(manifest: Manifest) -> str:
    rules = manifest.stop_rules
    if rules is None:
        return "each turn has its own"
    strings = f", {len(rules.stop_strings)} stop strings" if rules.stop_strings else ""
    return f"{rules.max_new_tokens} tokens at most, ends with {rules.eos_token_ids[:8]}{strings}"


def _or_unsaid(value: str | int | None) -> str:
    return "not said" if value is None else str(value)
