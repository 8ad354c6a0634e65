"""Traces of tiny models, recorded as ``specscope run`` records them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.load.models import Models, load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import ModelChoice, Settings


class Recording(NamedTuple):
    """What a run gave."""

    trace: Path | None
    output_ids: dict[str, list[int]]  # by the prompt's id


def record(
    choice: ModelChoice,
    prompts: Sequence[Prompt],
    trace: Path | None,
    *,
    models: Models | None = None,
    level: Any = "decisions",
    redact: str | None = None,
    tokens: int = 16,
    **more: Any,
) -> Recording:
    """Decodes ``prompts``; ``more`` goes to the request. Without ``trace`` nothing is recorded."""
    target = TraceTarget(trace, level, True, False, redact) if trace is not None else None
    settings = Settings(choice=choice, max_new_tokens=tokens, seed=7, **more)
    request = RunRequest(settings, list(prompts), target)
    models = models if models is not None else load_models(choice)
    fault = find_fault(settings.fault) if settings.fault is not None else None
    reports = run_turns(request, models, open_trace(request, models, print), change=injecting(fault))
    return Recording(trace, {report.prompt_id: report.result.output_ids for report in reports})
