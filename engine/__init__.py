"""The engine: decodes by tree speculation. The only room that imports torch, and it does so only where it decodes.

What a program may rely on is exported here, and loaded when it is first used::

    from specscope.engine import decode

    (turn,) = decode("def fibonacci(n):", mode="fused", trace="run.jsonl")
    print(turn.text, turn.result.mean_accepted_length)

Inside transformers: ``specscope.engine.hf``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specscope.engine.load.models import load_models
    from specscope.engine.run.decoding import decode
    from specscope.engine.run.prompts import Prompt
    from specscope.engine.run.runner import TurnReport
    from specscope.engine.settings import SamplingRule, Settings

__all__ = ["Prompt", "SamplingRule", "Settings", "TurnReport", "decode", "load_models"]

_HOMES = {
    "Prompt": "run.prompts",
    "SamplingRule": "settings",
    "Settings": "settings",
    "TurnReport": "run.runner",
    "decode": "run.decoding",
    "load_models": "load.models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
