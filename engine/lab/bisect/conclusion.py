"""From the numbers of a bisection to its answer: which phase, which operation, and what to run next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from specscope.engine.lab.bisect.floors import SPREAD, Floors
from specscope.engine.lab.bisect.operations import BEFORE, BEHIND, IN_LAYER, LAYER_OUTPUT, Operation
from specscope.schemas import Manifest
from specscope.schemas.bisection import (
    BISECTION_SCHEMA,
    Bisection,
    Compared,
    OperationError,
    Outcome,
    Prefix,
    State,
)
from specscope.schemas.phases import Phase
from specscope.tracer.compare.roundings import coarser
from specscope.tracer.errors import EXIT_DIFFERENT, EXIT_EQUAL, EXIT_NOT_REPRODUCED
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader

EXIT_CODES: dict[Outcome, int] = {"equal": EXIT_EQUAL, "not-reproduced": EXIT_NOT_REPRODUCED}


class Case(NamedTuple):
    """The two traces, and the configurations that the step was run in."""

    baseline: Path
    candidate: Path
    baseline_manifest: Manifest
    candidate_manifest: Manifest

    @property
    def dtype(self) -> str:
        """The coarser one."""
        return coarser(self.baseline_manifest.dtype, self.candidate_manifest.dtype)


def errors_of(state: State) -> dict[Operation, float]:
    """The errors of all operations, in the order in which they run."""
    ends = state.ends or {}
    errors = {Operation(None, name): ends[name] for name in BEFORE if name in ends}
    for number in sorted(state.layers, key=int):
        layer = state.layers[number]
        errors |= {Operation(int(number), name): layer[name] for name in (*IN_LAYER, LAYER_OUTPUT) if name in layer}
    return errors | {Operation(None, name): ends[name] for name in BEHIND if name in ends}


def floors_of(case: Case, state: State) -> Floors:
    """The floors of what was measured."""
    return Floors(errors_of(state), case.dtype)


def culprit_of(floors: Floors) -> Operation | None:
    """The first operation above its floor when fed equal inputs."""
    return next(iter(floors.above), None)


def conclude(case: Case, state: State, recording: TraceReader, entry: TurnEntry) -> Bisection:
    """The answer."""
    compared, errors, floors = state.compared, errors_of(state), floors_of(case, state)
    assert compared is not None
    drafter = state.draft.culprit if state.draft is not None else None
    first = culprit_of(floors)
    culprit = drafter or state.departure or (None if first is None else _error(first, errors, floors))
    prefix = _prefix(compared, floors, recording, entry) if errors or drafter is None else None
    outcome = _outcome(compared, floors, culprit, prefix)
    operations = [_error(operation, errors, floors) for operation in errors]
    return Bisection(
        schema=BISECTION_SCHEMA,
        outcome=outcome,
        exit_code=EXIT_CODES.get(outcome, EXIT_DIFFERENT),
        baseline=str(case.baseline),
        candidate=str(case.candidate),
        baseline_settings=settings_text(case.baseline_manifest),
        candidate_settings=settings_text(case.candidate_manifest),
        turn=state.turn,
        step=state.step,
        committed=compared.committed,
        phase=_phase(outcome, compared, culprit),
        difference=compared.difference,
        neighbours=compared.neighbours,
        inputs_equal=compared.inputs_equal,
        recordings=compared.recordings,
        unsteady=compared.unsteady,
        culprit=culprit if outcome in ("operation", "unsteady") else None,
        also=max(0, len(floors.above) - 1) if state.departure is None else 0,
        operations=[*(state.draft.operations if drafter is not None and state.draft is not None else ()), *operations],
        prefix=prefix,
        grafts=state.grafts or [],
        notes=compared.notes,
        next=_next(case, state, outcome, prefix),
    )


def settings_text(manifest: Manifest) -> str:
    """A configuration in words."""
    parts = [f"{manifest.attention} attention", manifest.dtype, manifest.device.backend, manifest.cache_strategy or ""]
    parts.append("paged cache" if manifest.cache == "paged" else "")
    return ", ".join([part for part in parts if part] + [f"fault {manifest.fault}"] * bool(manifest.fault))


def _error(operation: Operation, errors: dict[Operation, float], floors: Floors) -> OperationError:
    floor = floors.of(operation)
    return OperationError(
        layer=operation.layer,
        operation=operation.name,
        error=errors[operation],
        floor=floor.value,
        sample_size=floor.sample_size,
        at_ceiling=floor.at_ceiling,
    )


def _prefix(compared: Compared, floors: Floors, recording: TraceReader, entry: TurnEntry) -> Prefix:
    floor = floors.of_forward
    layer = next((n for n, error in enumerate(compared.prefix_errors) if error > floor), None)
    if layer is None:
        return Prefix(errors=compared.prefix_errors, floor=floor)
    # A single position is noisier than a layer.
    position = next((n for n, error in enumerate(compared.position_errors) if error > SPREAD * floor), None)
    committed_by = None
    for step in recording.steps(entry) if position is not None else ():
        commit = step.commit
        if commit is not None and commit.committed_before <= (position or 0) < commit.committed_after:
            committed_by = step.step
            break
    return Prefix(
        errors=compared.prefix_errors,
        floor=floor,
        first_layer=layer,
        first_position=position,
        committed_by=committed_by,
    )


def _outcome(compared: Compared, floors: Floors, culprit: OperationError | None, prefix: Prefix | None) -> Outcome:
    if any(difference.error > floors.of_forward for difference in compared.unsteady):
        return "unsteady"
    if culprit is not None:
        return "operation"
    if not compared.inputs_equal:
        return "phase"
    if prefix is not None and prefix.first_layer is not None:
        return "prefix"
    if compared.difference is not None:
        return "phase"
    if any(violation.again for violation in compared.recordings.violations):
        return "violation"
    return "equal" if compared.recordings.as_recorded else "not-reproduced"


def _phase(outcome: Outcome, compared: Compared, culprit: OperationError | None) -> Phase | None:
    if outcome == "operation":
        return "draft" if culprit is not None and culprit.level is not None else "verify"
    if outcome in ("unsteady", "equal", "not-reproduced", "violation", "prefix"):
        return None
    if compared.difference is not None:
        return compared.difference.phase
    return "tensors"


def _next(case: Case, state: State, outcome: Outcome, prefix: Prefix | None) -> list[str]:
    a, b = str(case.baseline), str(case.candidate)
    if outcome == "equal":
        return [shlex.join(["specscope", "diff", a, b])]
    by = None if prefix is None else prefix.committed_by
    if outcome in ("prefix", "phase") and by is not None and by < state.step:
        return [shlex.join(["specscope", "bisect", a, b, "--at", f"{state.turn}/{by}"])]
    place = ["--turn", str(state.turn), "--step", str(state.step)]
    return [shlex.join(["specscope", "show", a, *place]), shlex.join(["specscope", "view", a, b])]
