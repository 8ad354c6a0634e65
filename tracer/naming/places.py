"""What turns and steps are called in words: by the numbers that ``--turn``, ``--step`` and ``--at`` take.

A turn's number is the one it has in its run, counted from 0, whatever prompt it belongs to.
"""

from __future__ import annotations

from typing import NamedTuple


class StepPlace(NamedTuple):
    """A step of a run; both count from 0."""

    turn: int
    step: int


def turn_name(turn: int, prompt_id: str) -> str:
    """``turn 3 (prompt function)``."""
    return f"turn {turn} ({_prompt_name(prompt_id)})"


def turns_name(turn_a: int, turn_b: int, prompt_id: str) -> str:
    """A turn of two runs; the baseline's number first, where the candidate's is another."""
    if turn_a == turn_b:
        return turn_name(turn_a, prompt_id)
    return f"turns {turn_a} and {turn_b} ({_prompt_name(prompt_id)})"


def _prompt_name(prompt_id: str) -> str:
    """``prompt function``; the id of a single prompt that nobody named is the word itself, which is said once."""
    return prompt_id if prompt_id == "prompt" else f"prompt {prompt_id}"
