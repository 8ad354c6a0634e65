"""Acceptance rules in words, the same wherever one is named. A lossy one always says so."""

from __future__ import annotations

from specscope.schemas import Sampling

LOSSY = "lossy"  # stands in every name of a rule that is
NAMES = {
    "greedy": "greedy",
    "sampling": "sampling",
    "block": "block verification",
    "typical": "typical acceptance",
    "match": "draw and match",
    "unknown": "acceptance rule not known",
}


def is_lossy(sampling: Sampling) -> bool:
    """Whether the output has another distribution than the teacher's own. Typical acceptance always has."""
    return sampling.rule == "typical" or sampling.lossless is False


def rule_name(sampling: Sampling) -> str:
    """``greedy``, ``sampling``, ``lossy (typical acceptance)``."""
    name = NAMES[sampling.rule]
    return f"{LOSSY} ({name})" if is_lossy(sampling) else name


def rule_text(sampling: Sampling) -> str:
    """The name with what was set: ``sampling, temperature 0.8, top-p 0.9, sampled draft``."""
    settings = [
        ("temperature", sampling.temperature),
        ("top-k", sampling.top_k),
        ("top-p", sampling.top_p),
        ("epsilon", sampling.epsilon),
        ("delta", sampling.delta),
    ]
    if sampling.rule != "typical":  # the other rules do not look at these
        del settings[3:]
    words = [] if sampling.rule == "greedy" else [f"{name} {value:g}" for name, value in settings if value is not None]
    if sampling.rule in ("sampling", "block") and sampling.draft is not None:
        words.append(f"{sampling.draft} draft")
    return ", ".join([rule_name(sampling), *words])
