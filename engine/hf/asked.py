"""What ``generate`` was asked for: what a tree can do for it, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from specscope.tracer.errors import UsageError

CACHE_ARGUMENTS = ("past_key_values", "cache")  # the second from transformers 5.24 on
#: What ``generate`` may pass to the loop besides what the loop takes by name. None of it changes the output.
KNOWN_ARGUMENTS = frozenset(
    {
        "attention_mask",
        "position_ids",
        *CACHE_ARGUMENTS,
        "use_cache",
        "logits_to_keep",
        "cache_position",
        "synced_gpus",
    }
)


def check_asked(model: PreTrainedModel, config: GenerationConfig, arguments: dict[str, Any]) -> None:
    """Refuses what neither greedy search nor sampling is, and what the loop would have to leave out.

    Raises:
        UsageError: naming it.
    """
    mode = config.get_generation_mode(given_to_generate("assistant_model"))
    if mode not in ("greedy_search", "sample"):
        raise UsageError(f"got generation mode {mode.value}, wanted greedy_search or sample: trees stand for no other")
    wanted = [name for name in ("scores", "logits", "attentions", "hidden_states") if getattr(config, f"output_{name}")]
    if config.return_dict_in_generate and wanted:
        raise UsageError(f"got output_{wanted[0]}: whole trees are verified, not token by token; a trace records it")
    if config.cache_implementation not in (None, "dynamic", "dynamic_full"):
        raise UsageError(
            f"got cache_implementation {config.cache_implementation!r}: trees need their own cache; drop it"
        )
    for name in CACHE_ARGUMENTS:
        cache = arguments.get(name)
        if cache is not None and cache.get_seq_length() > 0:
            raise UsageError(f"got {name} that holds a text: trees need their own cache; pass the whole text as ids")
    strange = sorted(name for name, value in arguments.items() if value is not None and name not in KNOWN_ARGUMENTS)
    if strange:
        raise UsageError(f"got the model argument {strange[0]!r}: only input_ids and attention_mask reach a tree")
    places = set((getattr(model, "hf_device_map", None) or {"": model.device}).values())
    if len(places) > 1:
        raise UsageError(f"the model lies on {len(places)} devices, wanted one: load it without device_map")


def count_padding(input_ids: torch.Tensor, arguments: dict[str, Any]) -> list[int]:
    """How many ids in front of each row's prompt are padding.

    Raises:
        UsageError: where the mask hides anything else, or positions are not counted from the prompt's first id.
    """
    mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
    real = torch.ones_like(input_ids) if mask is None else (mask != 0).to(torch.int64)
    lengths = real.sum(dim=1).tolist()
    if not bool((real == real.sort(dim=1).values).all()) or 0 in lengths:
        raise UsageError("got an attention mask that hides more than padding on the left: pad on the left alone")
    counted = real.cumsum(dim=1) - 1
    if positions is not None and not bool(((positions == counted) | (real == 0)).all()):
        raise UsageError("got position ids of your own: a tree's are counted from the prompt's first id; drop them")
    return [input_ids.shape[1] - length for length in lengths]


def given_to_generate(name: str) -> Any:
    """The argument ``name`` of the running ``generate``.

    With a callable ``custom_generate``, transformers (5.17 to 5.24) hands neither streamer nor assistant model on, and
    says nothing; a streamer that is never ended blocks its reader for ever. So the caller's frame is asked.
    """
    code = inspect.unwrap(GenerationMixin.generate).__code__
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame.f_locals.get(name) if frame is not None else None
