"""The phases of a step, in their order: one list, from which every other takes its part.

The engine, the timing and a failure say ``tensorize`` for making what the verdict and the invariants call ``tensors``.
"""

from __future__ import annotations

from typing import Literal, get_args

#: The phases whose work two runs are compared by; each is a section of a step.
Phase = Literal["draft", "tree", "tensors", "verify", "accept", "commit", "stop"]
COMPARED_PHASES: tuple[Phase, ...] = get_args(Phase)

#: The phases whose time a step records.
TimedPhase = Literal["branch", "draft", "deliver", "tensorize", "check", "verify", "accept", "commit"]
TIMED_PHASES: tuple[TimedPhase, ...] = get_args(TimedPhase)

#: What may have been running when a turn failed.
FailedPhase = Literal[
    "prefill", "branch", "draft", "tensorize", "check", "verify", "accept", "commit", "stop", "record"
]
