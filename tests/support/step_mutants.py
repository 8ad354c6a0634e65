"""What is done to a step to break one rule of it, where that takes more than a line."""

from __future__ import annotations

from typing import Any

Step = dict[str, Any]


def swap_path(step: Step) -> None:
    """The accepted slots, last first."""
    step["accept"]["path"].reverse()


def reorder_sources(step: Step) -> None:
    """The first and the last row that were committed change places."""
    sources = step["commit"]["source_slots"]
    sources[0], sources[-1] = sources[-1], sources[0]
