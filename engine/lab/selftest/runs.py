"""Decodes and traces a scenario: honest runs once each, faulty runs with separate models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from specscope.engine.lab.faults import Fault, check_fits, injecting
from specscope.engine.lab.selftest.scenarios import Scenario
from specscope.engine.load.models import Models, load_models, resolve_device
from specscope.engine.run.runner import RunRequest, TraceTarget, TurnReport, open_trace, run_turns
from specscope.engine.settings import ModelChoice, Settings
from specscope.schemas.manifest import Mode, TraceLevel

USUAL_DTYPE = "float32"


class Faulty(NamedTuple):
    """A run with a fault in."""

    trace: Path  # missing where the run ended before there was one
    error: Exception | None  # what it ended with


class Runs:
    """Traces under one folder.

    Args:
        folder: must exist.
        device: where everything runs, in the command line's words.
        dtype: in which scenarios run.
    """

    def __init__(self, folder: Path, device: str, dtype: str = USUAL_DTYPE) -> None:
        self.folder = folder
        self.dtype = dtype
        self._device = device
        self._load: Callable[[ModelChoice], Models] = lru_cache(maxsize=2)(load_models)  # a run more seldom than a load
        self._honest: dict[str, Path] = {}
        self._others: dict[str, Runs] = {}

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return resolve_device(self._device)

    def in_dtype(self, dtype: str) -> Runs:
        """The same runs in another dtype; their traces lie beside these."""
        if dtype == self.dtype:
            return self
        return self._others.setdefault(dtype, Runs(self.folder, self._device, dtype))

    def baseline(self, scenario: Scenario) -> Path:
        """The trace of the scenario's honest baseline."""
        return self.honest(scenario, scenario.baseline)

    def honest(self, scenario: Scenario, mode: Mode) -> Path:
        """The trace of an honest run; decoded when it is first asked for."""
        name = f"{scenario.name}-{mode}"
        if name not in self._honest:
            self.decode(scenario, mode, self.path(name))
            self._honest[name] = self.path(name)
        return self._honest[name]

    def decode(
        self,
        scenario: Scenario,
        mode: Mode,
        trace: Path | None,
        level: TraceLevel = "decisions",
        redact: str | None = None,
    ) -> list[TurnReport]:
        """Decodes the scenario honestly, once more; ``redact`` is the key of a trace without its ids.

        Raises:
            SpecScopeError: where it fails.
        """
        request = self._request(scenario, mode, trace, level)
        if redact is not None and request.trace is not None:
            request = replace(request, trace=replace(request.trace, redact=redact))
        return self._run(request, self._load(request.settings.choice))

    def faulty(self, scenario: Scenario, fault: Fault) -> Faulty:
        """Decodes the scenario's candidate with ``fault`` in. What a run may end with is part of the outcome."""
        trace = self.path(fault.id)
        request = self._request(scenario, scenario.candidate, trace, "decisions")
        settings = replace(request.settings, fault=fault.id)
        try:
            if fault.damage is not None:
                damaged = self.folder / f"{fault.id}-models"
                damaged.mkdir()
                settings = replace(settings, choice=fault.damage(settings.choice, damaged))
            models = load_models(settings.choice)
            check_fits(fault, models)
            self._run(replace(request, settings=settings), models, fault)
        except Exception as error:  # a fault may break anything; the judge says whether this was the way it had to end
            return Faulty(trace, error)
        return Faulty(trace, None)

    def path(self, name: str) -> Path:
        """Where the trace of that name goes."""
        suffix = "" if self.dtype == USUAL_DTYPE else f"-{self.dtype}"
        return self.folder / f"{name}{suffix}.jsonl"

    def unused(self, name: str) -> Path:
        """A path like that name, where nothing is yet."""
        taken = count(2)
        path = self.path(name)
        while path.exists():
            path = self.path(f"{name}-{next(taken)}")
        return path

    def honest_traces(self) -> list[Path]:
        """All honest traces so far."""
        return list(self._honest.values())

    def _run(self, request: RunRequest, models: Models, fault: Fault | None = None) -> list[TurnReport]:
        writer = open_trace(request, models)
        return list(run_turns(request, models, writer, change=injecting(fault)))

    def _request(self, scenario: Scenario, mode: Mode, trace: Path | None, level: TraceLevel) -> RunRequest:
        settings = Settings(
            choice=replace(scenario.choice, mode=mode, device=self._device, dtype=self.dtype),
            max_new_tokens=scenario.max_new_tokens,
            stop_strings=scenario.stop_strings,
            batch_size=scenario.batch_size,
            processors=scenario.processors,
            cache=scenario.cache,
            grammar=scenario.grammar,
        )
        target = TraceTarget(trace, level) if trace is not None else None
        return RunRequest(settings, list(scenario.prompts), target)
