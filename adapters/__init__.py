"""Adapters: other people's engines, recorded from outside. What each can see is listed in docs/adapters.md.

None of them changes a line of the engine that it watches::

    from specscope.adapters import record_assisted

    with record_assisted(model, trace="assisted.jsonl"):
        model.generate(**inputs, prompt_lookup_num_tokens=5, max_new_tokens=64)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specscope.adapters.assisted import record_assisted
    from specscope.adapters.eagle import record_eagle
    from specscope.adapters.vllm import record_vllm
    from specscope.adapters.vllm_replay import recorded_drafts

__all__ = ["record_assisted", "record_eagle", "record_vllm", "recorded_drafts"]

_HOMES = {
    "record_assisted": "assisted",
    "record_eagle": "eagle",
    "record_vllm": "vllm",
    "recorded_drafts": "vllm_replay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
