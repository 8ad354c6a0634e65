"""``specscope bisect``: one step of two traces, narrowed to the phase, the layer and the operation."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from specscope.engine.cli.bisect_card import print_card, print_line
from specscope.engine.cli.computing import ATTENTION_NAME, DEVICE
from specscope.schemas.verdict import TIES
from specscope.tracer.cli.console import echo_document, progress
from specscope.tracer.cli.options import STEP_PLACE, allow_option, noise_option, tolerance_option
from specscope.tracer.cli.sections import SectionedCommand
from specscope.tracer.compare.align import align_steps, align_turns
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import EXIT_DIFFERENT, EXIT_EQUAL, CoverageError, IncomparableError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import check_writable
from specscope.tracer.naming.places import StepPlace
from specscope.tracer.oracle.check import check_trace

if TYPE_CHECKING:
    from specscope.schemas.bisection import Outcome
    from specscope.schemas.verdict import Blame, Verdict


SECTIONS = {
    "Step": ("at", "allow", "noise", "tolerance"),
    "Models": ("teacher", "drafter", "device", "attention", "allow_remote_code"),
    "Result": ("state", "form"),
}


@click.command(short_help="Narrow a step to the layer and the operation", cls=SectionedCommand, sections=SECTIONS)
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option(
    "--at", type=STEP_PLACE, metavar="TURN/STEP", help="Of the baseline.  [default: the first root of their diff]"
)
@allow_option
@noise_option
@tolerance_option
@click.option(
    "--state", type=click.Path(path_type=Path), help="Keep intermediate results in this file, and resume from it."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--teacher", help="Load the teacher from here.  [default: from where the runs loaded it]")
@click.option("--drafter", help="Load the drafter from here, as for run.  [default: from where the runs loaded it]")
@click.option("--device", type=DEVICE, metavar="NAME", help="[default: those of the runs]")
@click.option(
    "--attention",
    type=ATTENTION_NAME,
    metavar="NAME",
    help="Load the kernel of a run that had one from here, as it is now.  [default: as it was recorded]",
)
@click.option("--allow-remote-code", is_flag=True, help="Run code that comes with a model's folder.")
def bisect(
    baseline: Path,
    candidate: Path,
    at: StepPlace | None,
    allow: tuple[str, ...],
    noise: Path | None,
    tolerance: float | None,
    state: Path | None,
    form: str,
    teacher: str | None,
    drafter: str | None,
    device: str | None,
    attention: str | None,
    allow_remote_code: bool,
) -> None:
    """Run one step of BASELINE in both traces' configurations from equal state, and name what differs first.

    The step runs after the recorded tokens, on the recorded tree, beside the same rows of the batch. Where the drafts
    or the verify forwards differ, every operation is run on the baseline's inputs and its error is compared with a
    measured noise floor; where every operation is right by itself, the whole forwards are compared. Then values of the
    baseline are put into the candidate, to see whether what follows heals. An injected fault is injected again. What
    was run is compared with what was recorded: a difference that does not come back is never called equal.

    Without --at, the step is that of the first root of their diff that is not a tie; --allow, --noise and --tolerance
    apply to that diff.

    Exits 1 where something was found, or their diff has no root and a trace violates an invariant; 0 where the step is
    equal in both recordings and in both runs of it, or their diff finds nothing but ties; 2 where the step cannot be
    run; 3 where the models are not those of the runs, or their diff says that the traces are incomparable; 4 where it
    says that too little was recorded; 5 where what was recorded did not come back when the step was run again.
    """
    from specscope.engine.lab.bisect.narrow import Bisect, BisectRequest
    from specscope.engine.lab.rerun.recorded_run import Overrides

    if at is not None:
        place = at
    else:
        options = DiffOptions(tolerance=tolerance, allowed=frozenset(allow), noise=noise)
        verdict = diff_traces(baseline, candidate, options)
        found_root = first_root(verdict)
        if found_root is None:
            sys.exit(_print_nothing(verdict, baseline, candidate, form))
        place = found_root
    if state is not None:
        check_writable(state, overwrite=True)
    request = BisectRequest(
        baseline=baseline,
        candidate=candidate,
        place=place,
        overrides=Overrides(
            teacher=teacher, drafter=drafter, device=device, attention=attention, allow_remote_code=allow_remote_code
        ),
        state=state,
    )
    with Bisect(request) as run, progress("bisecting", run.num_units, "units", shown=True) as advance:
        bisection = run.run(advance)
    if form == "json":
        echo_document(bisection.model_dump_json(indent=2, by_alias=True, exclude_none=True) + "\n")
    else:
        print_card(bisection)
    sys.exit(bisection.exit_code)


def first_root(verdict: Verdict) -> StepPlace | None:
    """Where the first root of a diff is that is not a tie; None where the two were judged and there is none.

    Raises:
        IncomparableError: where the two traces may not be compared.
        CoverageError: where too little was recorded to say that there is none.
    """
    if verdict.verdict == "incomparable":
        first = verdict.incomparable[0]
        field = first.partition(":")[0]
        allow = "" if " " in field else f"let it differ with --allow {field}, or "
        raise IncomparableError(
            f"the two traces are incomparable: {first}; {allow}name a step of the baseline with --at TURN/STEP"
        )
    if verdict.verdict == "uncovered":
        raise CoverageError(
            f"too little was recorded to find a root: {verdict.uncovered[0]}; name a step of the baseline with --at "
            "TURN/STEP"
        )
    place = next((root.place for root in verdict.roots if root.difference.kind not in TIES), None)
    return StepPlace(place.turn, place.step_a) if place is not None else None


class _Nothing(NamedTuple):
    """What is said where there is no root to bisect."""

    outcome: Outcome
    exit_code: int
    headline: str
    notes: Sequence[str] = ()
    next: Sequence[str] = ()


def _nothing(verdict: Verdict, baseline: Path, candidate: Path) -> _Nothing:
    if verdict.violations:
        return _violated(verdict.violations, baseline, candidate)
    if verdict.roots:
        first = verdict.roots[0].place
        return _Nothing(
            outcome="equal",
            exit_code=EXIT_EQUAL,
            headline=f"ties: the diff of the two traces has no root but ties, {len(verdict.roots)} of them. To look at "
            f"the first anyway, give --at {first.turn}/{first.step_a}",
        )
    says = "equal: the diff of the two traces has no root. To look at a step anyway, name it with --at TURN/STEP"
    return _Nothing("equal", EXIT_EQUAL, says, list(verdict.remarks))


def _violated(violations: list[Blame], baseline: Path, candidate: Path) -> _Nothing:
    """Of the first violation on each side, and how many more."""
    notes, commands = [], []
    for side, name, path in (("a", "baseline", baseline), ("b", "candidate", candidate)):
        on_side = [violation for violation in violations if violation.side == side]
        if on_side:
            more = f" and {len(on_side) - 1} more" if len(on_side) > 1 else ""
            notes.append(f"the {name} violates {on_side[0].invariant}{more}: {on_side[0].witness}")
            commands.append(shlex.join(["specscope", "check", str(path)]))
    place = _place_of(violations[0], baseline, candidate)
    if place is not None:
        notes.append(f"look at that step with --at {place.turn}/{place.step}")
    headline = "different: the diff of the two traces has no root, but the oracle finds violated invariants"
    return _Nothing("violation", EXIT_DIFFERENT, headline, notes, next=commands)


def _place_of(violation: Blame, baseline: Path, candidate: Path) -> StepPlace | None:
    """The baseline's step at which ``violation`` stands, or the one beside it; None where it stands at no step."""
    first = check_trace(baseline if violation.side == "a" else candidate).invariants[violation.invariant].first
    if first is None or first.turn is None or first.step is None:
        return None
    with TraceReader(baseline) as a, TraceReader(candidate) as b:
        for turns in align_turns(a, b).pairs:
            for pair in align_steps(a, b, turns):
                step = pair.a if violation.side == "a" else pair.b
                if (step.turn, step.step) == (first.turn, first.step):
                    return StepPlace(pair.a.turn, pair.a.step)
    return None


def _print_nothing(verdict: Verdict, baseline: Path, candidate: Path, form: str) -> int:
    """Says why there is nothing to bisect, and returns the exit code."""
    from specscope.engine.lab.bisect.conclusion import settings_text
    from specscope.schemas.bisection import BISECTION_SCHEMA, Bisection

    nothing = _nothing(verdict, baseline, candidate)
    if form != "json":
        print_line(None, nothing.headline)
        for note in nothing.notes:
            print_line("note", note)
        for number, command in enumerate(nothing.next):
            print_line("next" if number == 0 else "", command)
        return nothing.exit_code
    settings = []
    for path in (baseline, candidate):
        with TraceReader(path) as reader:
            settings.append(settings_text(reader.manifest))
    bisection = Bisection(
        schema=BISECTION_SCHEMA,
        outcome=nothing.outcome,
        exit_code=nothing.exit_code,
        baseline=str(baseline),
        candidate=str(candidate),
        baseline_settings=settings[0],
        candidate_settings=settings[1],
        notes=[nothing.headline, *nothing.notes],
        next=list(nothing.next),
    )
    echo_document(bisection.model_dump_json(indent=2, by_alias=True, exclude_none=True) + "\n")
    return nothing.exit_code
