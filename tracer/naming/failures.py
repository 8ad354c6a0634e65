"""What a failure record says, in words."""

from __future__ import annotations

from specscope.schemas import Failure
from specscope.tracer.errors import ViolationError


def stopped_text(failure: Failure) -> str:
    """Where the run stopped, as far as that was recorded, and why: ``stopped in turn 0, step 3, in phase verify:
    RuntimeError: out of memory``."""
    step = "" if failure.step is None else f", step {failure.step}"
    where = "" if failure.turn is None else f" in turn {failure.turn}{step}"
    message = failure.message.removeprefix(f"row {failure.row or 0}: ")
    why = f"it violates {message}" if failure.error == ViolationError.__name__ else f"{failure.error}: {message}"
    return f"stopped{where}{in_phase(failure, ', ')}: {why}"


def in_phase(failure: Failure, before: str) -> str:
    """``in phase verify`` with what goes before it; nothing where the phase is not known."""
    return "" if failure.phase is None else f"{before}in phase {failure.phase}"
