"""``specscope bisect``: one step of two traces, narrowed to the phase, the layer and the operation."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from specscope.tracer.cli.console import progress
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import EXIT_EQUAL, UsageError
from specscope.tracer.reader import TraceReader
from specscope.tracer.text import printable
from specscope.tracer.writer import check_writable

if TYPE_CHECKING:
    from specscope.engine.bisect.narrow import StepPlace
    from specscope.engine.bisect.report import Bisection, OperationError

LAYERS_AROUND = 2  # the culprit's, shown above and below it


@click.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--at", "at", metavar="TURN/STEP", help="Of the baseline.  [default: the first root of their diff]")
@click.option("--state", type=click.Path(path_type=Path), help="Keep what was found in this file, and go on from it.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--teacher", help="Load the teacher from here.  [default: from where the runs loaded it]")
@click.option("--drafter", help="Load the drafter from here, as for run.  [default: from where the runs loaded it]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "npu"]), help="[default: those of the runs]")
@click.option("--allow-remote-code", is_flag=True, help="Run code that a model's folder brings along.")
def bisect(
    baseline: Path,
    candidate: Path,
    at: str | None,
    state: Path | None,
    form: str,
    teacher: str | None,
    drafter: str | None,
    device: str | None,
    allow_remote_code: bool,
) -> None:
    """Run one step of BASELINE in both traces' configurations from equal state, and name what differs first.

    The step runs behind the recorded tokens, on the recorded tree. Where the verify forwards differ, every operation
    of every layer is run on the baseline's own inputs and held against a measured noise floor. Then values of the
    baseline are put into the candidate, to see whether what follows heals. A fault that was injected is injected again.

    Exits 1 where something was found, 0 where the step is equal in both, 2 where it cannot be run, 3 where the models
    are not those of the runs.
    """
    from specscope.engine.bisect.narrow import Bisect, BisectRequest
    from specscope.engine.recorded_run import Overrides

    place = parse_place(at) if at is not None else first_root(baseline, candidate)
    if place is None:
        _print_nothing(baseline, candidate, form)
        sys.exit(EXIT_EQUAL)
    if state is not None:
        check_writable(state, overwrite=True)
    request = BisectRequest(baseline, candidate, place, Overrides(teacher, drafter, device, allow_remote_code), state)
    with Bisect(request) as run, progress("bisecting", run.num_units, "units", shown=True) as advance:
        found = run.run(advance)
    if form == "json":
        click.echo(found.model_dump_json(indent=2, by_alias=True, exclude_none=True))
    else:
        _print(found)
    sys.exit(found.exit_code)


def parse_place(text: str) -> StepPlace:
    """The turn and step that ``--at`` names.

    Raises:
        UsageError: where it names none.
    """
    from specscope.engine.bisect.narrow import StepPlace

    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None:
        raise UsageError(f"got --at {text!r}, wanted TURN/STEP, such as 0/7: both count from 0")
    return StepPlace(int(found[1]), int(found[2]))


def first_root(baseline: Path, candidate: Path) -> StepPlace | None:
    """Where the diff of the two traces finds its first root; None where it finds none.

    Raises:
        UsageError: where the traces have no step in common to begin with.
    """
    from specscope.engine.bisect.narrow import StepPlace

    verdict = diff_traces(baseline, candidate)
    if verdict.roots:
        return StepPlace(verdict.roots[0].place.turn, verdict.roots[0].place.step_a)
    if verdict.num_steps == 0:
        raise UsageError("the two traces have no step in common: name one of the baseline's with --at TURN/STEP")
    return None


def _print_nothing(baseline: Path, candidate: Path, form: str) -> None:
    from specscope.engine.bisect.conclusion import settings_text
    from specscope.engine.bisect.report import BISECTION_SCHEMA, Bisection

    settings = []
    for path in (baseline, candidate):
        with TraceReader(path) as reader:
            settings.append(settings_text(reader.manifest))
    if form == "json":
        found = Bisection(
            schema=BISECTION_SCHEMA,
            outcome="equal",
            exit_code=EXIT_EQUAL,
            baseline=str(baseline),
            candidate=str(candidate),
            baseline_settings=settings[0],
            candidate_settings=settings[1],
        )
        click.echo(found.model_dump_json(indent=2, by_alias=True, exclude_none=True))
        return
    click.echo(
        "equal: the diff of the two traces has no root difference; it also tells of violated invariants. Name a step "
        "with --at TURN/STEP to look at it all the same"
    )


def _print(found: Bisection) -> None:
    """The card."""
    _line(None, _headline(found))
    _line("step", f"turn {found.turn} step {found.step}, {found.committed} tokens committed")
    _line("baseline", f"{found.baseline}: {found.baseline_settings}")
    _line("candidate", f"{found.candidate}: {found.candidate_settings}")
    first = found.difference
    if first is None:
        _line("records", "no difference in any phase")
    else:
        _line("records", f"differ first in phase {first.phase}, {first.field}: {first.a} | {first.b}")
    _line("inputs", f"the verify forwards were given {'the same' if found.inputs_equal else 'different inputs'}")
    _print_operations(found)
    _print_prefix(found)
    for number, graft in enumerate(found.grafts):
        what = f"{graft.what}: {graft.measure} error {graft.before:.2e} -> {graft.after:.2e} (floor {graft.floor:.2e})"
        _line("grafts" if number == 0 else "", f"{what}, {'heals' if graft.heals else 'does not heal'}")
    for note in found.notes:
        _line("note", note)
    for number, command in enumerate(found.next):
        _line("next" if number == 0 else "", command)


def _line(name: str | None, text: str) -> None:
    click.echo(printable(text if name is None else f"  {name:<10} {text}"))


def _headline(found: Bisection) -> str:
    culprit, prefix = found.culprit, found.prefix
    if culprit is not None:
        return f"different: {_named(culprit)}"
    if found.outcome == "prefix" and prefix is not None:
        return f"different: the committed keys and values, from layer {prefix.first_layer} on"
    if found.outcome == "phase" and found.difference is not None:
        return f"different: phase {found.phase}, {found.difference.field}"
    return "equal: every operation is within its noise floor" if found.operations else "equal: no phase differs"


def _named(operation: OperationError) -> str:
    return operation.operation if operation.layer is None else f"layer {operation.layer} {operation.operation}"


def _print_operations(found: Bisection) -> None:
    culprit = found.culprit
    if not found.operations:
        return
    if culprit is None:
        worst = max(found.operations, key=lambda o: o.error / o.floor)
        nearest = f"{_named(worst)}: error {worst.error:.2e} of {worst.floor:.2e}"
        _line("operations", f"{len(found.operations)} run on equal inputs, none above its floor; nearest {nearest}")
        return
    _line("operation", f"{_named(culprit)}: error {culprit.error:.2e}, floor {culprit.floor:.2e} ({_sample(culprit)})")
    if found.also:
        _line("", f"{found.also} more above their floors")
    _print_layers(found, culprit)


def _sample(operation: OperationError) -> str:
    """What the floor was made of."""
    if operation.at_ceiling:
        return f"64 roundings, the ceiling: the {operation.sample_size} other layers are off by more"
    if operation.sample_size == 0:
        return "8 roundings"
    return f"8 medians of {operation.sample_size} other layers, one rounding at least"


def _print_layers(found: Bisection, culprit: OperationError) -> None:
    """The operations around the culprit, a layer a line."""
    layers = sorted({o.layer for o in found.operations if o.layer is not None})
    if not layers:
        return
    centre = layers[0] if culprit.layer is None else culprit.layer
    names = list(dict.fromkeys(o.operation for o in found.operations if o.layer is not None))
    _line("layer", "  ".join(f"{name:>19}" for name in names))
    for layer in layers:
        if abs(layer - centre) > LAYERS_AROUND:
            continue
        own = {o.operation: o for o in found.operations if o.layer == layer}
        cells = [f"{own[n].error:.2e}{'*' if own[n].error > own[n].floor else ' '}" if n in own else "" for n in names]
        _line(f"{layer:>5}", "  ".join(f"{cell:>19}" for cell in cells))


def _print_prefix(found: Bisection) -> None:
    prefix = found.prefix
    if prefix is None:
        return
    worst = max(prefix.errors, default=0.0)
    if prefix.first_layer is None:
        _line("prefix", f"committed keys and values are equal (error {worst:.2e}, floor {prefix.floor:.2e})")
        return
    where = f"from layer {prefix.first_layer} on (error {worst:.2e}, floor {prefix.floor:.2e})"
    if prefix.first_position is not None:
        maker = "the prefill" if prefix.committed_by is None else f"step {prefix.committed_by}"
        where += f", from position {prefix.first_position}, which {maker} committed"
    _line("prefix", f"committed keys and values differ {where}")
