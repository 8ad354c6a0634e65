"""Whether a fault was found, at the right place, and the right side blamed: three questions, answered apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from specscope.engine.lab.faults import Fault
from specscope.engine.lab.selftest.runs import USUAL_DTYPE, Faulty, Runs
from specscope.engine.lab.selftest.scenarios import find_scenario
from specscope.schemas.verdict import TIES, Blame, Root, Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.compare.excess import is_teachers_number
from specscope.tracer.compare.roundings import is_half
from specscope.tracer.errors import EXIT_DIFFERENT, EXIT_INCOMPARABLE, EXIT_USAGE, SpecScopeError


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of one fault. ``placed`` and ``blamed`` are None where there is nothing to ask: a run that was
    refused has no root and no side."""

    fault: Fault
    verdict: str  # the diff's word, or refused
    detected: bool
    placed: bool | None
    blamed: bool | None
    first: str  # phase and field of the first root, or what was said instead
    blame: tuple[str, ...]  # side and invariant
    wrong: tuple[str, ...]  # what is not as expected, in words; empty where all is
    dtype: str = USUAL_DTYPE

    @property
    def name(self) -> str:
        """The fault's id, and the dtype where it is not the usual one."""
        return self.fault.id if self.dtype == USUAL_DTYPE else f"{self.fault.id}, {self.dtype}"

    @property
    def attributable(self) -> bool:
        """Whether a record tells which side is wrong."""
        return self.blamed is not None and self.fault.expect.invariant is not None


def judge(runs: Runs, fault: Fault) -> Judgement:
    """Runs the scenario of ``fault`` with the fault in, compares it with the honest baseline, and judges the verdict.

    Raises:
        SpecScopeError: where the honest baseline cannot be had: then nothing can be judged.
    """
    scenario = find_scenario(fault.scenario)
    baseline = runs.baseline(scenario)
    run = runs.faulty(scenario, fault)
    if fault.expect.outcome == "refused" or not run.trace.exists():
        return _judge_refusal(fault, run)
    # What a half format hides within a pair, an honest run in the candidate's own mode shows.
    noise = runs.honest(scenario, scenario.candidate) if is_half(runs.dtype) else None
    return judge_verdict(fault, _diff(baseline, run.trace, noise), run.error)


def _diff(baseline: Path, candidate: Path, noise: Path | None) -> Verdict | SpecScopeError:
    try:
        return diff_traces(baseline, candidate, DiffOptions(noise=noise))
    except SpecScopeError as error:
        return error


def _judge_refusal(fault: Fault, run: Faulty) -> Judgement:
    error, wrong = run.error, []
    if error is None:
        message, detected = "the run went through", False
    else:
        message = _first_line(error)
        detected = isinstance(error, SpecScopeError) and error.exit_code == EXIT_USAGE
    verdict = "refused" if detected else "none" if error is None else f"failed: {type(error).__name__}"
    if fault.expect.outcome != "refused":
        detected = False
    if not detected:
        wrong.append(f"wanted {_wanted(fault)}, got {verdict}: {message}")
    says = fault.expect.says
    placed = None if says is None else detected and says in str(error)
    if detected and placed is False:
        wrong.append(f"the message wants {says!r}: {message}")
    asked = fault.expect.outcome in ("root", "violation")
    return Judgement(
        fault=fault,
        verdict=verdict,
        detected=detected,
        placed=False if asked else placed,
        blamed=False if asked else None,
        first=message,
        blame=(),
        wrong=tuple(wrong),
    )


def judge_verdict(fault: Fault, verdict: Verdict | SpecScopeError, error: Exception | None = None) -> Judgement:
    """The verdict against what was expected. ``error`` is what the candidate's run ended with."""
    if isinstance(verdict, SpecScopeError):
        says = f"the diff ends with {type(verdict).__name__}: {_first_line(verdict)}"
        asked = fault.expect.outcome != "incomparable"
        return Judgement(
            fault=fault,
            verdict="none",
            detected=False,
            placed=False,
            blamed=False if asked else None,
            first=says,
            blame=(),
            wrong=(says,),
        )
    if fault.expect.outcome == "incomparable":
        return _judge_incomparable(fault, verdict)
    root = next((r for r in verdict.roots if r.difference.kind not in TIES), None)
    detected = _is_detected(fault, verdict, root)
    placed = detected and _is_placed(fault, root)
    blames = [*(root.blame if root is not None else []), *verdict.violations]
    blamed = detected and _is_blamed(fault, [*(b for r in verdict.roots for b in r.blame), *verdict.violations], blames)
    shown = tuple(dict.fromkeys(f"{blame.side}: {blame.invariant}" for blame in blames))
    first = _place(root) if root is not None else _without_root(verdict)
    wrong = _complaints(fault, verdict, first=first, shown=shown, answers=[detected, placed, blamed])
    if error is not None and wrong:
        wrong.append(f"the run ended with {type(error).__name__}: {_first_line(error)}")
    return Judgement(
        fault=fault,
        verdict=verdict.verdict,
        detected=detected,
        placed=placed,
        blamed=blamed,
        first=first,
        blame=shown,
        wrong=tuple(wrong),
    )


def _judge_incomparable(fault: Fault, verdict: Verdict) -> Judgement:
    detected, says = verdict.exit_code == EXIT_INCOMPARABLE, fault.expect.says
    fields = "; ".join(verdict.incomparable) or _without_root(verdict)
    placed = None if says is None else detected and says in fields
    wrong = [] if detected else [f"wanted {_wanted(fault)}, got {verdict.verdict}"]
    if detected and placed is False:
        wrong.append(f"{says!r} is not among what differs: {fields}")
    return Judgement(
        fault=fault,
        verdict=verdict.verdict,
        detected=detected,
        placed=placed,
        blamed=None,
        first=fields,
        blame=(),
        wrong=tuple(wrong),
    )


def _is_detected(fault: Fault, verdict: Verdict, root: Root | None) -> bool:
    if verdict.exit_code != EXIT_DIFFERENT:
        return False
    if fault.expect.outcome == "root":
        return root is not None
    return any(blame.side == "b" for blame in verdict.violations)


def _is_placed(fault: Fault, root: Root | None) -> bool:
    """A root where it must be; for a violation, none at all."""
    if fault.expect.outcome == "violation":
        return root is None
    assert root is not None
    difference, expect = root.difference, fault.expect
    if any(difference.phase == phase and difference.field.startswith(field) for phase, field in expect.places):
        return True
    # Where noise hides the field itself, the rule that it breaks is the root, or the teacher's other numbers are.
    if expect.invariant == f"{difference.phase}.{difference.field}":
        return True
    return (
        difference.kind == "real"
        and "verify" in {phase for phase, _ in expect.places}
        and is_teachers_number(difference)
    )


def _is_blamed(fault: Fault, everywhere: list[Blame], at_root: list[Blame]) -> bool:
    if any(blame.side == "a" for blame in everywhere):
        return False
    if fault.expect.invariant is None:
        return not everywhere
    return any(blame.invariant == fault.expect.invariant for blame in at_root)


def _complaints(fault: Fault, verdict: Verdict, first: str, shown: tuple[str, ...], answers: list[bool]) -> list[str]:
    detected, placed, blamed = answers
    if not detected:
        missing = f"; not judged: {verdict.uncovered[0]}" if verdict.uncovered else ""
        return [f"wanted {_wanted(fault)}, got {verdict.verdict}{missing}"]
    wrong = []
    if not placed:
        wrong.append(f"wanted {_wanted(fault)}, got the first root at {first}")
    if not blamed:
        wanted = fault.expect.invariant
        whom = "nobody blamed" if wanted is None else f"b: {wanted} and nothing on side a"
        wrong.append(f"wanted {whom}, got {', '.join(shown) or 'nobody blamed'}")
    return wrong


def _wanted(fault: Fault) -> str:
    expect = fault.expect
    if expect.outcome != "root":
        return {"violation": "a violation and no root", "incomparable": "incomparable", "refused": "a refusal"}[
            expect.outcome
        ]
    return "a first root at " + " or ".join(f"{phase}: {field}" for phase, field in expect.places)


def _place(root: Root) -> str:
    return f"{root.difference.phase}: {root.difference.field}"


def _without_root(verdict: Verdict) -> str:
    if verdict.violations:
        return f"no root; {verdict.violations[0].invariant}"
    return f"no root; {verdict.uncovered[0]}" if verdict.uncovered else "no root"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
