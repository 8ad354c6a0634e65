"""Whether a profile says anything of a run: it was measured with some models, on one device, in one configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from specscope.engine.backends.devices import device_section
from specscope.engine.drafters.base import Drafter
from specscope.engine.settings import ModelChoice
from specscope.engine.teacher.model import Teacher
from specscope.schemas.profile import Profile
from specscope.tracer.errors import UsageError

#: What of the acceptance rule decides how much is accepted.
OF_RULE = ("rule", "temperature", "top_k", "top_p", "draft")


class _Fact(NamedTuple):
    """One thing that must be as it was when the profile was measured."""

    name: str
    profiled: Any
    of_run: Any


def check_profile(profile: Profile, choice: ModelChoice, teacher: Teacher, drafter: Drafter) -> None:
    """Refuses a profile of other models, another device or another configuration: its times and acceptance would be
    those of something else.

    Raises:
        UsageError: naming the first thing that differs.
    """
    for name, profiled, of_run in _facts(profile, choice, teacher, drafter):
        if profiled != of_run:
            raise UsageError(
                f"the profile was measured with {name} {_shown(profiled)}, this run has {_shown(of_run)}: measure one "
                "with the options of this run, by specscope bench --calibrate FILE"
            )


def _facts(profile: Profile, choice: ModelChoice, teacher: Teacher, drafter: Drafter) -> list[_Fact]:
    ours, theirs = teacher.manifest(), drafter.manifest()
    device, rule = device_section(teacher.device), choice.rule
    facts = [
        _Fact("a teacher of weights", profile.teacher.weights_digest, ours.weights_digest),
        _Fact("drafter", profile.drafter.kind, theirs.kind),
        _Fact("a drafter of weights", profile.drafter.weights_digest, theirs.weights_digest),
        _Fact("drafter settings", profile.drafter.settings, theirs.settings),
        _Fact("device", profile.device.backend, device.backend),
        _Fact("device", profile.device.name, device.name),
        _Fact("threads", profile.device.num_threads, device.num_threads),
        _Fact("dtype", profile.dtype, choice.dtype),
        _Fact("attention", profile.attention, choice.attention),
    ]
    if profile.drafter.quantization is not None:
        facts.append(_Fact("drafter quantization", profile.drafter.quantization, choice.drafter_quantization))
    if profile.products is not None and teacher.products is not None:
        facts.append(_Fact("matrix products", profile.products, teacher.products.runs))
    drawn = rule.rule != "greedy"
    names = OF_RULE if drawn else OF_RULE[:1]
    return facts + [_Fact(f"acceptance {name}", getattr(profile.sampling, name), getattr(rule, name)) for name in names]


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
