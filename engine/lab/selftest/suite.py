"""Runs faults and controls one after another, and gathers what they came to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from specscope.engine.host import num_threads
from specscope.engine.lab.faults import FAULTS, Fault
from specscope.engine.lab.selftest.controls import Control, all_controls, control_after_faults, honest_pair
from specscope.engine.lab.selftest.edges import EDGES, UNREACHED, edges_of
from specscope.engine.lab.selftest.judge import Judgement, judge
from specscope.engine.lab.selftest.runs import Runs
from specscope.engine.lab.selftest.scenarios import find_scenario
from specscope.engine.lab.selftest.score import ControlResult, NotRun, Score
from specscope.engine.lab.selftest.stages import STAGE_FAULTS, judge_stages, stage_controls
from specscope.engine.load.models import resolve_device
from specscope.tracer.errors import UsageError

#: The catalogue is run in this dtype, too: most engines compute in a half format, and noise hides more there.
HALF = "bfloat16"
#: The catalogue's entries, each a kind of bug that public engines had.
ENTRIES = tuple(f"F{number:02}" for number in range(1, 41))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to try."""

    faults: list[Fault]
    controls: list[Control]
    last: list[Control]  # when the faults have run
    not_run: list[NotRun] = field(default_factory=list)
    with_edges: bool = False
    once_more: list[Fault] = field(default_factory=list)  # in HALF

    @property
    def size(self) -> int:
        """Faults and controls."""
        return len(self.faults) + len(self.once_more) + len(self.controls) + len(self.last)


def plan(fault_ids: list[str], device: str) -> Plan:
    """Everything, or the faults named, by entry or id, with the honest pairs of their scenarios.

    Raises:
        UsageError: where a name is no fault's.
    """
    if not fault_ids:
        missing = [entry for entry in ENTRIES if not any(fault.entry == entry for fault in FAULTS.values())]
        not_run = [NotRun(entry, "no fault of this entry can be put in") for entry in missing]
        controls = [*all_controls(), *stage_controls()]
        return _plan(_all_faults(), controls, [control_after_faults()], not_run, resolve_device(device))
    faults: dict[str, Fault] = {}
    for name in fault_ids:
        chosen = {fault.id: fault for fault in _all_faults() if name in (fault.id, fault.entry)}
        if not chosen:
            known = ", ".join(fault.id for fault in _all_faults())
            raise UsageError(f"got fault {name!r}, wanted an entry such as F15 or one of {known}")
        faults |= chosen
    of_trees = [fault for fault in faults.values() if fault.not_run is None and fault.id not in STAGE_FAULTS]
    used = dict.fromkeys(fault.scenario for fault in of_trees)
    controls = [honest_pair(find_scenario(name)) for name in used]
    controls += stage_controls() if STAGE_FAULTS.keys() & faults.keys() else []
    return _plan(list(faults.values()), controls, [], [], resolve_device(device))


def _all_faults() -> list[Fault]:
    return [*FAULTS.values(), *STAGE_FAULTS.values()]


def _plan(
    faults: list[Fault], controls: list[Control], last: list[Control], not_run: list[NotRun], device: torch.device
) -> Plan:
    objections = {fault.id: _objection(fault, device) for fault in faults}
    not_run += [NotRun(name, why) for name, why in objections.items() if why is not None]
    run = [fault for fault in faults if objections[fault.id] is None]
    # What goes wrong at loading does so in any dtype.
    once_more = [
        fault for fault in run if fault.damage is None and not fault.is_half_already and fault.id not in STAGE_FAULTS
    ]
    # The edges are the scenarios' together: of some of them there is nothing to say.
    return Plan(faults=run, controls=controls, last=last, not_run=not_run, with_edges=bool(last), once_more=once_more)


def _objection(fault: Fault, device: torch.device) -> str | None:
    """Why the fault cannot be tried on ``device``; None where it can."""
    if fault.not_run is not None or fault.id in STAGE_FAULTS:
        return fault.not_run
    return find_scenario(fault.scenario).objection(device)


def run_selftest(what: Plan, runs: Runs, advance: Callable[[str], None]) -> Score:
    """Tries all of ``what`` and leaves the traces where ``runs`` says; ``advance`` is called with each when it is done.

    Raises:
        SpecScopeError: where a scenario's honest baseline cannot be decoded.
    """
    begun = time.monotonic()
    results, not_run = list[ControlResult](), list(what.not_run)
    judgements: list[Judgement] = []

    def try_control(control: Control) -> None:
        outcome = control.outcome(runs)
        if outcome.silent is None:
            not_run.append(NotRun(control.name, outcome.says))
        else:
            results.append(ControlResult(control.name, control.says, outcome.silent, outcome.says))
        advance(control.name)

    with num_threads(1):  # the models are tiny: more threads win nothing, and lose much on a machine that is busy
        for control in what.controls:
            try_control(control)
        for fault in what.faults:
            judgements.append((judge_stages if fault.id in STAGE_FAULTS else judge)(runs, fault))
            advance(fault.id)
        for fault in what.once_more:
            judgements.append(replace(judge(runs.in_dtype(HALF), fault), dtype=HALF))
            advance(f"{fault.id}, {HALF}")
        for control in what.last:
            try_control(control)
    reached = edges_of(runs.honest_traces()) if what.with_edges else set()
    edges = {edge: edge in reached for edge in EDGES} if what.with_edges else {}
    return Score(
        judgements=judgements,
        controls=results,
        not_run=not_run,
        edges=edges,
        unreached=UNREACHED if what.with_edges else {},
        seconds=time.monotonic() - begun,
    )
