"""What of the settings a run of several ranks refuses. Loads no torch: mistakes show early."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from specscope.engine.settings import DEMO_MODELS, Settings
from specscope.tracer.errors import UsageError

LIBRARY = "accelerate"
_INSTEAD = "drop the option, or leave out --tensor-parallel"


def check_settings(settings: Settings) -> None:
    """Refuses what ranks cannot do together, as far as it can be told before a model is loaded.

    Raises:
        UsageError: naming it, and what to do.
    """
    model, policy = settings.choice, settings.choice.policy
    refused = {
        "--graph": model.graph == "on",
        "--products packed": model.products == "packed",  # would pack a part of a weight as if it were the whole
        "--budget auto without --costs": policy.sizing == "measure",  # each rank would measure other costs
        "--tree auto": policy.shapes is not None,  # its profile was measured in one process
        "--arrivals-clock seconds": settings.arrivals_clock == "seconds",  # ranks would look at other times
        f"device {model.device}": ":" in model.device,  # each rank takes the device of its own number
    }
    for what, is_refused in refused.items():
        if is_refused:
            raise UsageError(
                f"got {what} with --tensor-parallel {model.num_ranks}, which does not support it: {_INSTEAD}"
            )
    if find_spec(LIBRARY) is None:
        raise UsageError(
            f"transformers divides a teacher with the help of {LIBRARY}, which is not installed: pip install "
            "'specscope[ranks]'"
        )
    _check_heads(settings)


def _check_heads(settings: Settings) -> None:
    """Refuses heads that cannot be dealt evenly, as far as the configuration tells."""
    model = settings.choice
    folder = DEMO_MODELS / "teacher" if model.teacher == "demo" else Path(model.teacher)
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # whoever loads it says what is wrong
    if not isinstance(stated, dict):
        return
    for name in ("num_attention_heads", "num_key_value_heads"):
        count = stated.get(name)
        if isinstance(count, int) and count % model.num_ranks:
            raise UsageError(
                f"got --tensor-parallel {model.num_ranks} for a teacher with {name} {count}, wanted a number of ranks "
                "that divides it"
            )
