"""From the names on a command line to a teacher, a drafter and a session."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from specscope.engine.backends.attention import registered_name
from specscope.engine.backends.choice import checked, kernel_of, warn_in_python
from specscope.engine.backends.devices import resolve_device as resolve_device
from specscope.engine.backends.products import (
    ChosenProducts,
    choose_products,
    pack_products,
    packed_difference,
    unpack_products,
)
from specscope.engine.backends.quantized import quantize
from specscope.engine.digests import digest_parameters
from specscope.engine.drafters.base import Drafter, NoDrafter
from specscope.engine.drafters.draws import DraftSampler
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.drafters.eagle3.files import load_head
from specscope.engine.drafters.early_exit.drafter import EarlyExitDrafter
from specscope.engine.drafters.early_exit.head import load_exit_head
from specscope.engine.drafters.merged.drafter import MergedDrafter
from specscope.engine.drafters.model import ModelDrafter, check_same_vocabulary
from specscope.engine.drafters.names import UNTRAINED, parse_drafter
from specscope.engine.drafters.ngram import NgramDrafter, NgramSettings, parse_ngram_settings
from specscope.engine.load.costs import size_by_costs
from specscope.engine.load.profiles import check_profile
from specscope.engine.settings import DEMO_MODELS as DEMO_MODELS
from specscope.engine.settings import DTYPE_NAMES, ModelChoice
from specscope.engine.teacher.model import Teacher, TeacherOptions
from specscope.engine.tree.policy import policy_of_shape
from specscope.tracer.errors import UsageError

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


@dataclass(frozen=True)
class Models:
    """A loaded teacher and its drafter."""

    teacher: Teacher
    drafter: Drafter


def load_models(choice: ModelChoice, warn: Callable[[str], None] = warn_in_python) -> Models:
    """Loads what ``choice`` names. Where the device's own attention does not compute what the eager one does, that runs
    in its place, and ``warn`` is called with the reason, unless the choice goes without the check.

    Raises:
        UsageError: where something is missing, the drafter does not fit the teacher, or a kernel that the choice names
            differs from the eager attention.
    """
    device, dtype = _device_of(choice), DTYPES[choice.dtype]
    kernel = kernel_of(choice.attention, device)
    options = TeacherOptions(
        dtype=dtype,
        device=device,
        attention="eager" if kernel is None else kernel.name,
        allow_remote_code=choice.allow_remote_code,
        allow_download=choice.allow_download,
        allow_nonfinite=choice.allow_nonfinite,
        num_ranks=choice.num_ranks,
    )
    name = str(DEMO_MODELS / "teacher") if choice.teacher == "demo" else choice.teacher
    teacher = Teacher.load(name, options)
    teacher.attention = checked(choice.attention, kernel, teacher.model, check=choice.self_check, warn=warn)
    if teacher.attention.runs != options.attention:
        options = replace(options, attention=teacher.attention.runs)
        teacher.attend_by(registered_name(options.attention))
    if choice.num_ranks == 1:
        teacher.products = _multiplied(choice, teacher, warn)
    else:
        teacher.products = ChosenProducts(runs="plain", reason="each rank has a part of the weights")
        teacher.parameters = digest_parameters(teacher.model)
    return Models(teacher, load_drafter(choice, teacher, replace(options, num_ranks=1)))


def _device_of(choice: ModelChoice) -> torch.device:
    """Where the choice runs; of several ranks each on the device of its own number.

    Raises:
        UsageError: where it is not there, or ranks are asked for and this process is none of them.
    """
    device = resolve_device(choice.device)
    if choice.num_ranks == 1:
        return device
    if not dist.is_initialized() or dist.get_world_size() != choice.num_ranks:
        raise UsageError(
            f"got {choice.num_ranks} ranks in a process that is not one of them: they are started by specscope run "
            f"--tensor-parallel {choice.num_ranks}"
        )
    divided_on = torch.accelerator.current_accelerator()
    there = "cpu" if divided_on is None else divided_on.type
    if device.type != there:
        raise UsageError(f"got device {device} for several ranks, among which transformers divides on {there} only")
    return device if device.type == "cpu" else resolve_device(f"{device.type}:{os.environ.get('LOCAL_RANK', '0')}")


def _multiplied(choice: ModelChoice, teacher: Teacher, warn: Callable[[str], None]) -> ChosenProducts:
    """What the teacher's products are computed by from now on."""
    chosen = choose_products(choice.products, choice.attention, teacher.model)
    if chosen.runs == "plain":
        return chosen
    pack_products(teacher.model)
    difference = packed_difference(teacher.model) if choice.self_check else None
    if difference is None:
        return chosen
    unpack_products(teacher.model)
    warn(f"with packed products the teacher's logits differ ({difference}): torch's own products run instead")
    return ChosenProducts(runs="plain", reason=f"packed ones differ: {difference}")


def load_drafter(choice: ModelChoice, teacher: Teacher, options: TeacherOptions) -> Drafter:
    """Loads the drafter that ``choice`` names for ``teacher``, which was loaded with ``options``. Where its trees are
    to be no larger than pays, and nobody says what they cost, that is measured.

    Raises:
        UsageError: where something is missing, or it does not fit the teacher.
    """
    if choice.mode == "baseline":
        return NoDrafter()
    kind, path = parse_drafter(choice.drafter, choice.teacher)
    if choice.drafter_window is not None and kind not in ("eagle3", "eagle3+ngram"):
        raise UsageError(f"got a drafter window with drafter {kind}: only eagle3 has one; drop --drafter-window")
    if choice.drafter_quantization != "none" and kind not in ("eagle3", "eagle3+ngram"):
        raise UsageError(
            f"got a drafter quantization with drafter {kind}: only eagle3 has one; drop --drafter-quantization"
        )
    sampler = None
    if choice.rule.draft == "sampled":
        sampler = DraftSampler(choice.rule.temperature, teacher.vocab_size)
        sampler.check(choice.policy)
    if choice.policy.shapes is not None:  # until the first step, which chooses
        choice = replace(choice, policy=policy_of_shape(choice.policy.shapes.shapes[-1]))
    drafter = DRAFTERS[kind](_Parts(choice, teacher, path, options, sampler=sampler))
    if choice.drafter_quantization != "none" and drafter.module is not None:
        quantize(drafter.module, choice.drafter_quantization)
    if teacher.products is not None and teacher.products.runs == "packed" and drafter.module is not None:
        pack_products(drafter.module)
    if choice.profile is not None:
        check_profile(choice.profile, choice, teacher, drafter)
    if choice.policy.sizing is not None:
        size_by_costs(drafter, teacher, choice.policy.costs)
    return drafter


class _Parts(NamedTuple):
    """What a drafter is built from."""

    choice: ModelChoice
    teacher: Teacher
    path: str  # behind the colon; empty where there is none
    options: TeacherOptions  # how the teacher was loaded
    sampler: DraftSampler | None

    def folder(self, name: str) -> Path:
        """The folder named, or the demo's ``name``."""
        return Path(self.path) if self.path else DEMO_MODELS / name


def _eagle3(parts: _Parts) -> Eagle3Drafter:
    choice, teacher = parts.choice, parts.teacher
    folder = parts.folder("drafter")
    files = load_head(folder, teacher.hidden_size, teacher.vocab_size, allow_nonfinite=choice.allow_nonfinite)
    return Eagle3Drafter(
        files,
        choice.policy,
        embedding=files.embedding(teacher.embedding),
        feature_layers=files.feature_layers(teacher.num_layers),
        attention=parts.options.attention,
        dtype=parts.options.dtype,
        device=parts.options.device,
        sampler=parts.sampler,
        window=choice.drafter_window,
    )


def _early_exit(parts: _Parts) -> Drafter:
    if parts.path == UNTRAINED:
        raise UsageError("got drafter early-exit:untrained, which only --engine ppsd has: give a folder in its place")
    folder = parts.folder("exit_head")
    files = load_exit_head(folder, allow_nonfinite=parts.choice.allow_nonfinite)
    return EarlyExitDrafter(parts.teacher, files, parts.choice.policy, parts.sampler)


def _model(parts: _Parts) -> Drafter:
    name = str(DEMO_MODELS / "teacher") if parts.path == "demo" else parts.path
    model = Teacher.load(name, parts.options)
    check_same_vocabulary(model, parts.teacher)
    return ModelDrafter(model, parts.choice.policy, parts.sampler)


def _ngram(parts: _Parts) -> Drafter:
    if parts.sampler is not None:
        raise UsageError(
            "got --draft-sampling with drafter ngram, which looks drafts up and has no distribution to draw them from: "
            "drop it (the best drafts are lossless too), or give another drafter"
        )
    return NgramDrafter(parts.choice.policy, parse_ngram_settings(parts.path))


def _eagle3_and_ngram(parts: _Parts) -> Drafter:
    policy = parts.choice.policy
    if parts.sampler is not None:
        raise UsageError(
            "got --draft-sampling with drafter eagle3+ngram, whose lookup has no distribution to draw from, so that "
            "its nodes and drawn ones cannot be weighed side by side: drop it (the best drafts are lossless too), or "
            "give --drafter eagle3"
        )
    if policy.kind != "dynamic":
        raise UsageError(
            f"got a {policy.kind} tree with drafter eagle3+ngram: a tree of fixed shape has no room for what the "
            "lookup finds; give --tree dynamic, or --drafter eagle3"
        )
    return MergedDrafter(_eagle3(parts), NgramDrafter(policy, NgramSettings()))


def _none(parts: _Parts) -> Drafter:
    return NoDrafter()


#: Drafters by the name that ``--drafter`` gives them.
DRAFTERS: dict[str, Callable[[_Parts], Drafter]] = {
    "eagle3": _eagle3,
    "eagle3+ngram": _eagle3_and_ngram,
    "early-exit": _early_exit,
    "model": _model,
    "ngram": _ngram,
    "none": _none,
}
