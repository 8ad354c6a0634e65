"""What a manifest says of a call of transformers' ``generate``. Loads torch for its version alone."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from specscope.adapters.models import describe_teacher, digests_of

#: By what transformers calls the object that proposes tokens, the format's kind of drafter.
KINDS = {
    "PromptLookupCandidateGenerator": "ngram",
    "EarlyExitCandidateGenerator": "early-exit",
    "AssistedCandidateGenerator": "model",
}
SECTIONS = ("tree", "verify", "stop", "timing")


def about_call(model: Any, generator: Any, settings: Any, words: dict[str, Any]) -> dict[str, Any]:
    """What the recorder is told: ``settings`` are the call's generation configuration, ``words`` what the generator of
    candidates was made of."""
    kind = KINDS.get(type(generator).__name__, type(generator).__name__.removesuffix("CandidateGenerator").lower())
    sampling = _sampling_of(kind, settings, words)
    attention = str(model.config._attn_implementation)
    about = {
        **_where(model),
        "mode": "eager" if attention == "eager" else "fused",
        "attention": attention,
        "teacher": describe_teacher(model),
        "drafter": {"kind": kind, **_drafter_of(words.get("assistant_model"), model)},
        "tree_policy": _policy_of(generator, kind, settings),
        "sampling": sampling,
        "sections": (*SECTIONS, "accept" if sampling["rule"] == "greedy" else "accept.path"),
    }
    return about | _stop_rules_of(settings)


def _where(model: Any) -> dict[str, Any]:
    """What ran it, on which device and in which dtype."""
    return {
        "engine": f"transformers {version('transformers')}",
        "versions": {"torch": torch.__version__, "transformers": version("transformers")},
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": {"backend": model.device.type, "name": model.device.type},
    }


def _sampling_of(kind: str, settings: Any, words: dict[str, Any]) -> dict[str, Any]:
    """A lookup has no distribution: where tokens are drawn, drafts are accepted that match them."""
    if not settings.do_sample:
        processors = sorted(type(processor).__name__ for processor in words.get("logits_processor") or [])
        return {"rule": "greedy", **({"processors": dict.fromkeys(processors, True)} if processors else {})}
    named = {name: getattr(settings, name, None) for name in ("temperature", "top_k", "top_p")}
    stated = {name: value for name, value in named.items() if value is not None}
    return {"rule": "match" if kind == "ngram" else "sampling", **stated}


def _stop_rules_of(settings: Any) -> dict[str, Any]:
    if settings.max_new_tokens is None:
        return {}
    strings = settings.stop_strings or []
    rules = {
        "max_new_tokens": settings.max_new_tokens,
        "eos_token_ids": eos_of(settings),
        "stop_strings": [strings] if isinstance(strings, str) else list(strings),
    }
    return {"stop_rules": rules}


def eos_of(settings: Any) -> list[int]:
    """The tokens that end a turn."""
    eos = settings.eos_token_id
    if eos is None:
        return []
    return [int(token) for token in (eos if isinstance(eos, list | tuple) else [eos])]


def _drafter_of(assistant: Any, model: Any) -> dict[str, Any]:
    if assistant is None or assistant is model:
        return {}
    folder = Path(str(assistant.config.name_or_path))
    return {"name": folder.name or type(assistant).__name__, **digests_of(folder)}


def _policy_of(generator: Any, kind: str, settings: Any) -> dict[str, Any]:
    """A chain. A schedule other than ``constant`` lengthens it while all is accepted: to the turn's end at most."""
    if kind == "ngram":
        return _chain(generator.num_output_tokens, adaptive=True)  # a lookup proposes what it finds
    settings_of_drafts = getattr(generator, "assistant_generation_config", None)
    most = getattr(generator, "num_assistant_tokens", None)
    if most is None or getattr(settings_of_drafts, "num_assistant_tokens_schedule", "constant") != "constant":
        return _chain(settings.max_length, adaptive=True)
    return _chain(most, adaptive=bool(getattr(settings_of_drafts, "assistant_confidence_threshold", None)))


def _chain(depth: int, *, adaptive: bool) -> dict[str, Any]:
    """Where nothing shortens it on purpose it may still end at a stop token, so that is left unsaid."""
    policy = {"kind": "chain", "depth": int(depth), "top_k": 1, "budget": int(depth)}
    return policy | {"adaptive": True} if adaptive else policy
