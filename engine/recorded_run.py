"""A recorded run, to be run again: its models, checked to be the same, and its settings, from its manifest."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any, NamedTuple

import torch

from specscope.engine.assemble import DTYPES, ModelChoice, Models, load_models
from specscope.engine.attention import ATTENTION
from specscope.engine.decoding import Decoding, Phases
from specscope.engine.logits import ProcessorChoice, Processors, build_processors
from specscope.engine.sampling import SamplingRule
from specscope.engine.stopping import StopRules
from specscope.engine.teacher import Teacher
from specscope.engine.tree_policy import TreePolicy, static_policy
from specscope.schemas import Drafter, Manifest, Sampling, Section
from specscope.schemas import Teacher as TeacherManifest
from specscope.tracer.errors import IncomparableError, UsageError

#: What must be as recorded, where it was recorded: models of other weights say nothing of the run.
SAME_TEACHER = ("architecture", "config_digest", "weights_digest", "num_layers", "hidden_size", "vocab_size")
SAME_DRAFTER = ("kind", "config_digest", "weights_digest", "hidden_state_indices", "settings")


@dataclass(frozen=True)
class Overrides:
    """What the user says instead of the manifest."""

    teacher: str | None = None
    drafter: str | None = None
    device: str | None = None
    allow_remote_code: bool = False


class RecordedModels(NamedTuple):
    """The models of a run, loaded again."""

    models: Models
    notes: list[str]  # what is not as it was, and may matter


def load_recorded(manifest: Manifest, overrides: Overrides) -> RecordedModels:
    """Loads what the run was decoded with.

    Raises:
        UsageError: where the manifest does not say what it was, or it cannot be loaded.
        IncomparableError: where what was loaded is something else.
    """
    models = load_models(_choice(manifest, overrides))
    teacher, drafter = models.teacher.manifest(), models.drafter.manifest()
    _check_same("teacher", manifest.teacher, teacher, SAME_TEACHER)
    _check_same("drafter", manifest.drafter, drafter, SAME_DRAFTER)
    return RecordedModels(models, _notes(manifest, models.teacher))


def _choice(manifest: Manifest, overrides: Overrides) -> ModelChoice:
    for name, said, wanted in (
        ("dtype", manifest.dtype, DTYPES),
        ("device", overrides.device or manifest.device.backend, ("auto", "cpu", "cuda", "npu")),
        ("attention", manifest.attention, ATTENTION),
    ):
        if said not in wanted:
            raise UsageError(f"the trace's {name} is {said!r}, which this engine does not have: {', '.join(wanted)}")
    attention: Any = manifest.attention
    return ModelChoice(
        overrides.teacher or _source("teacher", manifest.teacher),
        overrides.drafter or _source("drafter", manifest.drafter),
        manifest.mode,
        manifest.dtype,
        overrides.device or manifest.device.backend,
        _policy(manifest),
        _rule(manifest.sampling),
        attention,
        overrides.allow_remote_code,
    )


def _source(what: str, recorded: TeacherManifest | Drafter) -> str:
    if recorded.source is not None:
        return recorded.source
    if isinstance(recorded, Drafter) and recorded.kind == "none":
        return "none"
    raise UsageError(f"the trace does not say what its {what} was loaded from: give --{what}")


def _policy(manifest: Manifest) -> TreePolicy:
    said = manifest.tree_policy
    if said.choices is not None and (said.kind == "static" or said.kind == "chain"):
        return static_policy(said.choices, said.name or said.kind, said.kind)
    return TreePolicy(said.kind, said.depth, said.top_k, said.budget, said.name)


def _rule(said: Sampling) -> SamplingRule:
    told = {name: getattr(said, name) for name in ("temperature", "top_k", "top_p", "epsilon", "delta", "draft")}
    return SamplingRule(said.rule, **{name: value for name, value in told.items() if value is not None})


def _check_same(what: str, recorded: Section, found: Section, names: tuple[str, ...]) -> None:
    for name in names:
        was, now = getattr(recorded, name), getattr(found, name)
        if was is not None and was != now:
            raise IncomparableError(
                f"the {what} that was loaded is not the trace's: {name} is {now}, was {was}; name the one of the run "
                f"with --{what}"
            )


def _notes(manifest: Manifest, teacher: Teacher) -> list[str]:
    here = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": teacher.device.type,
    }
    then = {**manifest.versions, "device": manifest.device.backend}
    notes = [f"{name} was {then[name]}, is {now}" for name, now in here.items() if then.get(name, now) != now]
    unsaid = [
        what
        for what, section in (("teacher", manifest.teacher), ("drafter", manifest.drafter))
        if section.source is not None and section.config_digest is not None and section.weights_digest is None
    ]
    return notes + [f"the trace does not tell the {what}'s weights" for what in unsaid]


def rules_of(manifest: Manifest) -> StopRules:
    """The stop rules of the run."""
    said = manifest.stop_rules
    return StopRules(said.max_new_tokens, said.eos_token_ids, said.stop_strings)


def decoding_of(manifest: Manifest, teacher: Teacher, phases: Phases) -> Decoding:
    """What the run's loop was set to do, with ``phases``.

    Raises:
        UsageError: where it changed logits in a way that the command line has no word for.
    """
    return Decoding(
        rule=_rule(manifest.sampling),
        cache_strategy=manifest.cache_strategy or "in-place",
        processors=_processors(manifest, teacher),
        phases=phases,
    )


def _processors(manifest: Manifest, teacher: Teacher) -> Processors | None:
    described = manifest.sampling.processors or {}
    strange = sorted(described.keys() - {field.name for field in fields(ProcessorChoice)})
    if strange:
        raise UsageError(f"the run changed its logits by {strange[0]}, which cannot be built from a trace")
    eos = manifest.stop_rules.eos_token_ids
    return build_processors(ProcessorChoice(**described), eos, teacher.device)
