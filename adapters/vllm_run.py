"""What a manifest says of a run of vLLM. Knows no torch: it reads attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specscope.adapters.models import describe_config, digests_of, version_of

#: By vLLM's method, the format's kind of drafter; others keep their name.
KINDS = {"ngram": "ngram", "ngram_gpu": "ngram", "draft_model": "model"}
#: What proposes what it finds, if anything.
WITHOUT_MODEL = frozenset({"ngram", "ngram_gpu", "suffix", "custom_class"})
#: By vLLM's way to accept drafts that were drawn.
RULES = {"standard": "sampling", "block": "block"}


def about_run(runner: Any) -> dict[str, Any]:
    """What the recorder is told of the run, besides how requests draw and end."""
    config = runner.vllm_config
    model, cache = config.model_config, config.cache_config
    teacher = describe_config(model.hf_config, (model.hf_config.architectures or ["unknown"])[0])
    about: dict[str, Any] = {
        "engine": f"vllm {version_of('vllm')}",
        "versions": {name: version_of(name) for name in ("torch", "transformers")},
        "mode": "fused",
        "attention": _attention_of(runner),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": {"backend": runner.device.type, "name": runner.device.type},
        "teacher": teacher | ({} if model.quantization is None else {"quantization": model.quantization}),
        "batch_size": config.scheduler_config.max_num_seqs,
        "cache": "paged",
        "block_size": cache.block_size,
        **_drafts_of(runner, config.speculative_config),
    }
    if config.parallel_config.world_size > 1:  # how its tensors are cut is nowhere said in the format's words
        about["not_known"] = ["tensor_parallel"]
    return about if cache.cache_dtype == "auto" else about | {"kv_dtype": str(cache.cache_dtype)}


def _attention_of(runner: Any) -> str:
    """The name of the kernels for the teacher's first layers."""
    groups = getattr(runner, "attn_groups", None) or [[]]
    return str(groups[0][0].backend.get_name()) if groups[0] else "other"


def _drafts_of(runner: Any, speculative: Any) -> dict[str, Any]:
    """Drafter and policy: vLLM's trees are chains."""
    if speculative is None:
        return {
            "drafter": {"kind": "none"},
            "tree_policy": {"kind": "none", "depth": 0, "top_k": 0, "budget": 0},
        }
    recorded = getattr(runner.drafter, "recorded", None)  # drafts of a trace, verified once more
    if recorded is not None:
        return dict(recorded)
    depth = speculative.num_speculative_tokens
    policy: dict[str, Any] = {"kind": "chain", "depth": depth, "top_k": 1, "budget": depth}
    drafter: dict[str, Any] = {"kind": KINDS.get(speculative.method, speculative.method)}
    if speculative.method not in WITHOUT_MODEL:
        folder = Path(speculative.model)
        return {"drafter": drafter | {"name": folder.name, **digests_of(folder)}, "tree_policy": policy}
    return {"drafter": drafter, "tree_policy": policy | {"adaptive": True}}


def sampling_of(runner: Any, params: Any) -> dict[str, Any]:
    """The manifest's ``sampling`` of a request."""
    if params.temperature == 0:
        return {"rule": "greedy"}
    speculative = runner.vllm_config.speculative_config
    method = "standard" if speculative is None else getattr(speculative, "rejection_sample_method", "standard")
    named = {"temperature": params.temperature, "top_p": params.top_p}
    rule = {"rule": RULES.get(method, "unknown"), **named}
    return rule | {"top_k": params.top_k} if params.top_k > 0 else rule


def stop_rules_of(params: Any) -> dict[str, Any]:
    """The manifest's ``stop_rules`` of a request; none where the length of its prompt decides."""
    if params.max_tokens is None:
        return {}
    eos = [] if params.eos_token_id is None else [params.eos_token_id]
    strings = [params.stop] if isinstance(params.stop, str) else list(params.stop or ())
    ends = sorted({*eos, *(params.stop_token_ids or ())})
    rules = {"max_new_tokens": params.max_tokens, "eos_token_ids": ends, "stop_strings": strings}
    return {"stop_rules": rules}
