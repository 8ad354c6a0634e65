"""A recorded run, to be run again: its models, checked to be the same, and its settings, from its manifest."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from specscope.engine.accept.processors import build_processors
from specscope.engine.backends.devices import resolve_device
from specscope.engine.backends.kernels import MODULE_FUNCTION, REGISTERED, is_registered, kernel_file
from specscope.engine.backends.products import packing_problem
from specscope.engine.digests import digest_file
from specscope.engine.lab.faults import FaultTarget, find_fault, inject
from specscope.engine.load.decoding import decoding_of
from specscope.engine.load.models import DTYPES, Models, load_models
from specscope.engine.loop.phases import Decoding, Phases
from specscope.engine.loop.stopping import StopRules
from specscope.engine.record.manifest import settings_of
from specscope.engine.settings import ATTENTIONS, DTYPE_NAMES, ModelChoice, ProductsChoice, check_device_name
from specscope.engine.teacher.model import Teacher
from specscope.schemas import Manifest, Section
from specscope.schemas.manifest import Attention
from specscope.tracer.errors import IncomparableError, UsageError

#: What must be as recorded, where it was recorded: models of other weights say nothing of the run.
SAME_TEACHER = ("architecture", "config_digest", "weights_digest", "num_layers", "hidden_size", "vocab_size")
SAME_DRAFTER = ("kind", "config_digest", "weights_digest", "hidden_state_indices", "settings")


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the user says instead of the manifest."""

    teacher: str | None = None
    drafter: str | None = None
    device: str | None = None
    attention: str | None = None  # the kernel of a run that had one, as it is now
    allow_remote_code: bool = False
    mode: Attention | None = None
    dtype: str | None = None
    cache_strategy: str | None = None
    cache: str | None = None

    def settings_of(self, manifest: Manifest) -> Manifest:
        """The manifest of the run that is wanted: the recorded one's, with what was said instead. A baseline stays one,
        with the attention of the mode."""
        changes: dict[str, Any] = {}
        attention: str | None = self.mode
        if self.attention is not None and (self.mode == "fused" or manifest.attention not in ATTENTIONS):
            attention = self.attention
        if attention is not None:
            mode = "eager" if attention == "eager" else "fused"
            changes |= {"attention": attention, "mode": "baseline" if manifest.mode == "baseline" else mode}
            if attention != manifest.attention:
                changes["products"] = None  # those were the other path's
        if self.dtype is not None:
            changes["dtype"] = self.dtype
        if self.cache_strategy is not None:
            changes["cache_strategy"] = self.cache_strategy
        if self.cache is not None:
            changes |= {"cache": self.cache, "block_size": manifest.block_size if self.cache == "paged" else None}
            changes["graph"] = "none"  # as in every replay; a paged cache has none
        return manifest.model_copy(update=changes)


class RecordedModels(NamedTuple):
    """The models of a run, loaded again."""

    models: Models
    notes: list[str]  # what is not as it was, and may matter
    choice: ModelChoice  # what they were loaded by


def load_recorded(manifest: Manifest, overrides: Overrides) -> RecordedModels:
    """Loads what the run was decoded with, in the configuration that ``overrides`` make of it.

    Raises:
        UsageError: where the manifest does not say what it was, or it cannot be loaded.
        IncomparableError: where what was loaded is something else.
    """
    choice, warnings = _choice(overrides.settings_of(manifest), overrides), list[str]()
    models = load_models(choice, warn=warnings.append)
    teacher, drafter = models.teacher.manifest(), models.drafter.manifest()
    _check_same("teacher", manifest.teacher, teacher, SAME_TEACHER)
    _check_same("drafter", manifest.drafter, drafter, SAME_DRAFTER)
    return RecordedModels(models, [*_notes(manifest, models.teacher), *warnings], choice)


def check_readable(path: Path, manifest: Manifest) -> None:
    """Refuses a trace whose steps cannot be run again.

    Raises:
        UsageError: where it records only lengths, is redacted, or of several stages.
    """
    if manifest.level == "lengths":
        raise UsageError(f"{path} records only how many tokens were accepted: there is nothing to run again")
    if manifest.pipeline is not None:
        raise UsageError(
            f"{path} is of a pipelined run, whose stages cannot be run again from a trace: decode its prompts again "
            "with specscope run, with --engine ppsd or without, and compare the traces with specscope diff"
        )
    if manifest.redaction is not None:
        raise UsageError(
            f"{path} is redacted: its token ids are not the models' own, so that nothing can be decoded from them; "
            "give the trace that it was made from"
        )


def fault_target(manifest: Manifest, models: Models) -> FaultTarget:
    """``models`` and the loop's phases with the recorded fault in, if the run had one.

    Raises:
        UsageError: where there is no such fault, or it damaged files before they were loaded.
    """
    target = FaultTarget(models, Phases())
    if manifest.fault is None:
        return target
    fault = find_fault(manifest.fault)
    if fault.damage is not None:
        raise UsageError(f"fault {fault.id} damages files before they are loaded, and cannot be put into loaded models")
    return inject(target, fault)


def _choice(manifest: Manifest, overrides: Overrides) -> ModelChoice:
    device = overrides.device or manifest.device.backend
    if manifest.dtype not in DTYPE_NAMES:
        raise UsageError(
            f"the trace's dtype is {manifest.dtype!r}, which this engine does not have: {', '.join(DTYPE_NAMES)}"
        )
    _check_device(device, overrides)
    if manifest.attention not in ATTENTIONS and overrides.attention is None:
        _check_kernel(manifest)
    recorded = settings_of(manifest).choice
    return replace(
        recorded,
        teacher=overrides.teacher or _named("teacher", recorded.teacher),
        drafter=overrides.drafter or _named("drafter", recorded.drafter),
        device=device,
        graph="off",  # each step is run by itself, and bisection looks into its forwards
        products=_products(recorded, device),
        allow_remote_code=overrides.allow_remote_code,
        allow_nonfinite=True,  # the run was let through with them, or they have other digests than its own
    )


def _products(recorded: ModelChoice, device: str) -> ProductsChoice:
    """What the run multiplied by, as far as it can be had here."""
    cannot = packing_problem(resolve_device(device), DTYPES[recorded.dtype]) is not None
    return "auto" if recorded.products == "packed" and cannot else recorded.products


def _check_device(device: str, overrides: Overrides) -> None:
    if overrides.device is not None:
        check_device_name(device)
        return
    try:
        check_device_name(device)
        resolve_device(device)
    except UsageError as error:
        raise UsageError(f"the trace's device is {device!r}: {error}; give --device") from None


def _check_kernel(manifest: Manifest) -> None:
    """Refuses the trace's kernel where it is not to be found as it was. A trace may come from anybody: only the code
    that it was recorded with is run for it, unless the user names the kernel."""
    name, kernel = manifest.attention, manifest.kernel
    if is_registered(name):
        return
    if kernel is None or kernel.file_digest is None:
        raise UsageError(
            f"the trace's attention is {name!r}, and it does not record which code that was: name the kernel with "
            "--attention, or record another run"
        )
    if kernel.origin == REGISTERED and not MODULE_FUNCTION.fullmatch(name):
        raise UsageError(
            f"the trace's attention is {name!r}, {REGISTERED} that recorded it, which no other can find: register it "
            "here, or give --attention MODULE:FUNCTION"
        )
    file = kernel_file(name)
    if file is None:
        raise UsageError(
            f"the trace's attention is {name!r} ({kernel.origin or 'of unknown origin'}, file {kernel.file}), which is "
            "not to be found from here: run from the folder that holds it, set PYTHONPATH, or give --attention"
        )
    if digest_file(file) != kernel.file_digest:
        raise UsageError(
            f"{file}, which holds the trace's attention {name!r}, has changed since the run was recorded: give "
            f"--attention {name} to run it as it is now"
        )


def _named(what: str, source: str) -> str:
    if not source:
        raise UsageError(f"the trace does not say what its {what} was loaded from: give --{what}")
    return source


def _check_same(what: str, recorded: Section, loaded: Section, names: tuple[str, ...]) -> None:
    for name in names:
        was, now = getattr(recorded, name), getattr(loaded, name)
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
    notes += _kernel_notes(manifest, teacher)
    runs = teacher.products.runs if teacher.products is not None else None
    if manifest.products is not None and runs != manifest.products:
        notes.append(f"matrix products were {manifest.products}, are {runs}")
    return notes + [f"the trace does not tell the {what}'s weights" for what in unsaid]


def _kernel_notes(manifest: Manifest, teacher: Teacher) -> list[str]:
    """Whether the eager attention ran in a kernel's place then and does not now, or the other way round."""
    before, now = manifest.kernel, teacher.attention.manifest() if teacher.attention is not None else None
    if before is None or now is None or before.name != now.name or before.fell_back == now.fell_back:
        return []
    then, here = ("failed", "passes") if before.fell_back else ("did not fail", "fails")
    return [f"the self-check of attention {now.name} {then} when the run was recorded and {here} here"]


def rules_of(manifest: Manifest) -> StopRules:
    """The stop rules of the run.

    Raises:
        UsageError: where the manifest does not tell.
    """
    stop_rules = manifest.stop_rules
    if stop_rules is None:
        raise UsageError("the trace does not say when its turns were to end: it was not written by this engine")
    return StopRules(stop_rules.max_new_tokens, stop_rules.eos_token_ids, stop_rules.stop_strings)


def recorded_decoding(manifest: Manifest, teacher: Teacher, phases: Phases) -> Decoding:
    """What the run's loop was set to do, with ``phases``. Trees are checked on the host, for the record's sake.

    Raises:
        UsageError: where it changed logits in a way that the command line has no word for.
    """
    recorded = settings_of(manifest)
    settings = replace(recorded, choice=replace(recorded.choice, graph="off"))
    eos_token_ids = rules_of(manifest).eos_token_ids  # those of the run, which need not be the teacher's
    processors = build_processors(settings.processors, eos_token_ids, teacher.device)
    return replace(decoding_of(settings, teacher, phases), checks="before", processors=processors)
