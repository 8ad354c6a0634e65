"""``decode``: prompts in, turns out, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from specscope.engine.backends.kernels import register_kernel
from specscope.engine.load.models import Models, load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, TurnReport, open_trace, run_turns
from specscope.engine.settings import Settings
from specscope.schemas.manifest import TraceLevel
from specscope.tracer.errors import UsageError
from specscope.tracer.files.ring import TraceRing


def decode(
    prompts: str | Prompt | Iterable[str | Prompt],
    *,
    trace: str | Path | TraceRing | None = None,
    trace_level: TraceLevel = "decisions",
    trace_text: bool = False,
    overwrite: bool = False,
    models: Models | None = None,
    **settings: Any,
) -> list[TurnReport]:
    """Decodes every turn of ``prompts`` and returns the turns in the order in which they ended.

    Example::

        from specscope.engine import decode

        (turn,) = decode("def fibonacci(n):", mode="eager", max_new_tokens=16)
        print(turn.result.output_ids, turn.result.mean_accepted_length)

    Args:
        prompts: texts to continue as they stand, or ``Prompt`` objects for conversations and token ids.
        trace: where to write a trace, or a ``TraceRing`` that keeps the last steps in memory; without, none is made.
        trace_level, trace_text, overwrite: of the trace, as ``specscope run`` takes them.
        models: what to decode with, from ``load_models``; loaded by ``settings`` where not given.
        settings: fields of ``Settings`` or ``ModelChoice`` by name, such as ``mode``, ``drafter``, ``max_new_tokens``;
            ``attention`` is a name as ``--attention`` takes it, or the kernel itself.

    Raises:
        UsageError: where the settings, the prompts or the file cannot be used.
        EngineError: where decoding fails; a trace then says so.
        TraceLostError: where everything was decoded and the trace could not be written to its end.
    """
    if callable(settings.get("attention")):
        settings["attention"] = register_kernel(settings["attention"])
    chosen = Settings.of(**settings)
    if chosen.fault is not None:
        raise UsageError("got a fault: decode injects none; use specscope run --inject")
    given = [prompts] if isinstance(prompts, (str, Prompt)) else list(prompts)
    named = [
        prompt if isinstance(prompt, Prompt) else Prompt(f"prompt-{number}", turns=(prompt,))
        for number, prompt in enumerate(given)
    ]
    place = Path(trace) if isinstance(trace, str) else trace
    target = TraceTarget(place, trace_level, overwrite, trace_text) if place is not None else None
    request = RunRequest(chosen, named, target)
    loaded = models if models is not None else load_models(chosen.choice)
    writer = open_trace(request, loaded)
    reports = list(run_turns(request, loaded, writer))
    if writer is not None:
        writer.check_whole()
    return reports
