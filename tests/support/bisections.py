"""Bisections of tiny recorded runs, and faults of a test's own to put into them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specscope.engine.lab.bisect.narrow import Bisect, BisectRequest
from specscope.engine.lab.faults import FAULTS, Fault, FaultTarget
from specscope.engine.lab.faults.base import Expectation
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.schemas.bisection import Bisection
from specscope.tracer.naming.places import StepPlace
from support.traces import load, store

Inject = Callable[[FaultTarget], FaultTarget]
QUIET: Callable[[str], None] = lambda _: None  # noqa: E731
AT = StepPlace(1, 2)


def as_if(trace: Path, to: Path, **settings: Any) -> Path:
    """A copy of the trace whose manifest tells of other settings: of the candidate that is all that is run. Its records
    are still those of a run that keeps its own invariants."""
    lines = load(trace)
    lines[0] |= settings
    for line in lines:
        section = line.get("verify") or line.get("prefill") or {}
        if "attention" in settings and section.get("dispatch"):
            section["dispatch"] = {settings["attention"]: sum(section["dispatch"].values())}
        if "cache_strategy" in settings and "commit" in line:
            line["commit"]["strategy"] = settings["cache_strategy"]
    return store(lines, to / "candidate.jsonl")


def bisected(a: Path, b: Path, place: StepPlace = AT, state: Path | None = None) -> Bisection:
    """The answer for one step."""
    with Bisect(BisectRequest(baseline=a, candidate=b, place=place, overrides=Overrides(), state=state)) as run:
        return run.run(QUIET)


def put_in(monkeypatch: pytest.MonkeyPatch, inject: Inject, fault_id: str = "T") -> str:
    """Enters a fault into the catalogue for one test, and says its name."""
    monkeypatch.setitem(FAULTS, fault_id, Fault(id=fault_id, says="of a test", expect=Expectation(), inject=inject))
    return fault_id
