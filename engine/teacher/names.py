"""What a teacher may be called, checked before anything is loaded. Imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import Path

from specscope.tracer.errors import UsageError

MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of the Hugging Face Hub


def no_teacher(name: str) -> UsageError:
    """The error for a name that leads to no model."""
    return UsageError(
        f"no teacher at {name!r}: wanted a folder with config.json and safetensors, or the id of a model in the "
        "local Hugging Face cache (nothing is downloaded without --allow-download)"
    )


def check_teacher_path(name: str) -> None:
    """Refuses what can only be a path, and is not a folder.

    Raises:
        UsageError: for it.
    """
    is_id = MODEL_ID.fullmatch(name) is not None and not name.startswith(".")
    if not is_id and not Path(name).is_dir():
        raise no_teacher(name)
