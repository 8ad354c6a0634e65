"""The comparison of two traces: alignment proof, roots and what follows from them, the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import TIES, VERDICT_SCHEMA, Blame, Drift, NoiseFloor, Place, Side, Verdict, VerdictKind
from specscope.tracer.compare.align import Aligned, TurnPair, align_steps, align_turns
from specscope.tracer.compare.commands import next_commands
from specscope.tracer.compare.coverage import coverage_problems, is_decisive, not_supplied
from specscope.tracer.compare.deciding import with_deciding
from specscope.tracer.compare.impact import Tokens, impact_of, outputs_differ
from specscope.tracer.compare.judge import FloatJudge
from specscope.tracer.compare.manifests import ManifestComparison, both_draft, compare_manifests
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.noise import coarser, given_floors, measure_gaps, measured_floors
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.prefill import compare_prefills
from specscope.tracer.compare.roots import Filed, Findings, PairState
from specscope.tracer.compare.steps import StepPair
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_DIFFERENT, EXIT_EQUAL, EXIT_INCOMPARABLE, UsageError
from specscope.tracer.oracle import MISSHAPEN, OracleReport, check_trace
from specscope.tracer.places import turn_name, turns_name
from specscope.tracer.reader import TraceReader
from specscope.tracer.rules import rule_text
from specscope.tracer.text import printable


@dataclass(frozen=True)
class DiffOptions:
    """What the user may set."""

    tolerance: float | None = None  # None: the noise floor is measured
    allowed: frozenset[str] = frozenset()  # manifest fields that may differ
    fail_on_ties: bool = False
    noise: Path | None = None  # a run that differs from the baseline by noise alone


class _Sides(NamedTuple):
    """The two runs, and what the oracle said of each."""

    a: TraceReader
    b: TraceReader
    report_a: OracleReport
    report_b: OracleReport

    def is_misshapen(self, step_a: Step, step_b: Step) -> bool:
        """Whether the lists of one of two aligned steps do not fit together."""
        return any(violated.invariant in MISSHAPEN for violated in self.blame(step_a, step_b))

    def forgotten(self) -> list[str]:
        """Whose violations were so many that the later ones were only counted."""
        sides = (("baseline", self.report_a), ("candidate", self.report_b))
        return [
            f"the {name} violates invariants in more than {len(report.by_step)} steps: behind them nobody is blamed"
            for name, report in sides
            if report.forgetful
        ]

    def blame(self, step_a: Step, step_b: Step) -> list[Blame]:
        """What the oracle found violated at two aligned steps."""
        return [
            *_blames("a", self.report_a, step_a),
            *_blames("b", self.report_b, step_b),
        ]


class PairMark(NamedTuple):
    """What became of two aligned steps."""

    step_a: int
    step_b: int
    position: int  # committed length at which both begin
    state: PairState
    root: int | None  # index, among the verdict's roots, of the one that it is or follows from
    same_context: bool  # off where the tokens before the two differ, so that nothing of them can be compared


class TurnMarks(NamedTuple):
    """The aligned steps of one turn, in order. Steps of either side that stand in none have no partner."""

    turn_a: int
    turn_b: int
    pairs: list[PairMark]
    same_prompt: bool = True  # off where an earlier turn's outputs differ: then no steps of this one are compared


class Comparison(NamedTuple):
    """A verdict, and what became of every pair of steps on the way to it."""

    verdict: Verdict
    turns: list[TurnMarks]


@dataclass
class _Walk:
    """What has been found so far."""

    judge: FloatJudge
    findings: Findings
    marks: list[TurnMarks] | None = None  # kept where they are asked for: they grow with the trace
    num_steps: int = 0
    num_regrouped: int = 0
    uncovered: list[str] = field(default_factory=list)
    tokens: Tokens = field(default_factory=Tokens)


def diff_traces(baseline: Path, candidate: Path, options: DiffOptions | None = None) -> Verdict:
    """Compares the traces at ``baseline`` (a) and ``candidate`` (b).

    Raises:
        TraceError: where one of them cannot be read.
        UsageError: where the run to measure noise on cannot tell the noise of this pair.
    """
    return _compared(baseline, candidate, options or DiffOptions(), None)


def compare_traces(baseline: Path, candidate: Path, options: DiffOptions | None = None) -> Comparison:
    """As ``diff_traces``, with the state of every pair of steps: some 100 bytes of memory each.

    Raises:
        TraceError: where one of them cannot be read.
        UsageError: where the run to measure noise on cannot tell the noise of this pair.
    """
    marks: list[TurnMarks] = []
    return Comparison(_compared(baseline, candidate, options or DiffOptions(), marks), marks)


def _compared(baseline: Path, candidate: Path, options: DiffOptions, marks: list[TurnMarks] | None) -> Verdict:
    with TraceReader(baseline) as a, TraceReader(candidate) as b:
        proof = compare_manifests(a.manifest, b.manifest, options.allowed)
        turns = align_turns(a, b)
        incomparable = proof.incomparable + _start_differences(a, b, turns.pairs)
        sides = _Sides(a, b, check_trace(baseline), check_trace(candidate))
        floors = [] if incomparable else _floors(sides, options)
        alone = bool(a.manifest.replay_of or b.manifest.replay_of)
        walk = _Walk(FloatJudge.of(floors, a.manifest), Findings(steps_stand_alone=alone), marks)
        walk.uncovered += coverage_problems(a, "baseline") + coverage_problems(b, "candidate")
        walk.uncovered += sides.forgotten()
        if not alone:  # a replay may be of some turns alone
            walk.uncovered += [f"only in the baseline: {name}" for name in turns.only_a]
            walk.uncovered += [f"only in the candidate: {name}" for name in turns.only_b]
        if not incomparable:
            for pair in turns.pairs:
                _compare_turn(sides, pair, walk)
            if not turns.pairs:
                walk.uncovered.append("no turn is in both traces")
            elif walk.num_steps == 0 and any(t.a.steps or t.b.steps for t in turns.pairs):
                walk.uncovered.append("no pair of steps could be aligned")
        return _verdict(sides, proof, incomparable, floors, walk, options, turns.pairs)


def _floors(sides: _Sides, options: DiffOptions) -> list[NoiseFloor]:
    """Given, or measured on the run of ``--noise``, or on the pair itself. Of two dtypes the coarser one tells."""
    a, b = sides.a, sides.b
    dtype = coarser(a.manifest.dtype, b.manifest.dtype)
    if options.tolerance is not None:
        return given_floors(dtype, options.tolerance)
    if options.noise is None:
        return measured_floors(dtype, measure_gaps(a, b, sides.is_misshapen), "this-pair")
    with TraceReader(options.noise) as other:
        problem = _not_noise(a, b, other, options)
        if problem is not None:
            raise UsageError(
                f"{options.noise} cannot tell the noise of {a.path}: {problem}; record an honest run once more"
            )
        return measured_floors(dtype, measure_gaps(a, other), "noise-file")


def _not_noise(a: TraceReader, b: TraceReader, other: TraceReader, options: DiffOptions) -> str | None:
    """Why ``other`` is no run that differs from the baseline by noise alone, as far as it can be told."""
    for name, reader in (("baseline", a), ("candidate", b)):
        if other.manifest.run_id == reader.manifest.run_id:
            return f"it is the {name} itself"
    if other.manifest.fault is not None:
        return f"it has fault {other.manifest.fault} in"
    problems = compare_manifests(a.manifest, other.manifest, options.allowed).incomparable
    if problems:
        return problems[0]
    found = _first_violations("b", check_trace(other.path))
    return f"it violates {found[0].invariant}: {found[0].witness}" if found else None


def _compare_turn(sides: _Sides, turns: TurnPair, walk: _Walk) -> None:
    """Compares a turn, and says where its outputs differ and no root explains it."""
    before = len(walk.findings.roots)
    _compare_steps_of(sides, turns, walk)
    ends = sides.a.turn_end(turns.a), sides.b.turn_end(turns.b)
    if outputs_differ(*ends) and len(walk.findings.roots) == before and not walk.findings.is_open:
        walk.uncovered.append(f"{_name(turns)}: the outputs differ{_unsaid(sides)}")
    walk.tokens.add(*ends)


def _compare_steps_of(sides: _Sides, turns: TurnPair, walk: _Walk) -> None:
    start_a, start_b = sides.a.turn_start(turns.a), sides.b.turn_start(turns.b)
    findings = walk.findings
    if turns.a.prompt_turn == 0:
        findings.close()
    if start_a.prompt_ids != start_b.prompt_ids:
        if not findings.is_open:
            walk.uncovered.append(f"{_name(turns)}: the contexts differ")
        for _ in range(max(len(turns.a.steps), len(turns.b.steps))):
            findings.inherit()
        if walk.marks is not None:
            walk.marks.append(TurnMarks(turns.a.turn, turns.b.turn, [], same_prompt=False))
        return
    if turns.a.prompt_turn > 0 and not findings.real_is_open:
        findings.close()
    found = compare_prefills(walk.judge, start_a.prefill, start_b.prefill)
    if found is not None:
        findings.file(_place(turns, len(start_a.prompt_ids), 0, 0), [found], [])
    marks = TurnMarks(turns.a.turn, turns.b.turn, [])
    if walk.marks is not None:
        walk.marks.append(marks)
    num_pairs = 0
    for pair in align_steps(sides.a, sides.b, turns):
        num_pairs += 1
        filed = _compare_pair(sides, turns, pair, walk)
        if walk.marks is not None:
            marks.pairs.append(PairMark(pair.step_a, pair.step_b, pair.position, *filed, pair.same_context))
    walk.num_steps += num_pairs
    walk.num_regrouped += len(turns.a.steps) + len(turns.b.steps) - 2 * num_pairs
    _note_unaligned(walk, turns, sides)


def _compare_pair(sides: _Sides, turns: TurnPair, pair: Aligned, walk: _Walk) -> Filed:
    findings = walk.findings
    if not pair.same_context:
        return findings.inherit()
    if pair.equal:
        findings.close()
        return Filed("equal")
    if sides.is_misshapen(pair.a, pair.b):
        name = turn_name(turns.b.turn, turns.b.prompt_id)
        walk.uncovered.append(f"{name}, step {pair.b.step} of the candidate: its lists do not fit together")
        return Filed("unjudged")
    place = _place(turns, pair.position, pair.a.step, pair.b.step)
    blame = sides.blame(pair.a, pair.b)
    return findings.file(place, compare_steps(_step_pair(pair, sides.a, sides.b, walk.judge)), blame)


def _name(turns: TurnPair) -> str:
    return turns_name(turns.a.turn, turns.b.turn, turns.a.prompt_id)


def _place(turns: TurnPair, position: int, step_a: int, step_b: int) -> Place:
    return Place(
        turn=turns.a.turn,
        turn_b=turns.b.turn,
        prompt_id=turns.a.prompt_id,
        prompt_turn=turns.a.prompt_turn,
        position=position,
        step_a=step_a,
        step_b=step_b,
    )


def _step_pair(pair: Aligned, a: TraceReader, b: TraceReader, judge: FloatJudge) -> StepPair:
    """What ``compare_steps`` takes, for two aligned steps of the runs ``a`` and ``b``."""

    def nodes(step: Step | None) -> StepNodes | None:
        return None if step is None else StepNodes(step)

    return StepPair(
        StepNodes(pair.a),
        StepNodes(pair.b),
        nodes(pair.previous_a),
        nodes(pair.previous_b),
        judge,
        both_draft(a.manifest, b.manifest),
        a.manifest.tree_policy == b.manifest.tree_policy,
        pair.regrouped > 0,
    )


def _note_unaligned(walk: _Walk, turns: TurnPair, sides: _Sides) -> None:
    """Says where a step's place was not recorded, so that what follows it could not be aligned."""
    for name, reader, turn in (("baseline", sides.a, turns.a), ("candidate", sides.b, turns.b)):
        if {"stop", "commit", "tensors"} & set(reader.manifest.capabilities):
            for step in reader.steps(turn):
                if step.stop is None and step.commit is None and step.tensors is None:
                    where = f"{turn_name(turn.turn, turn.prompt_id)}, step {step.step}"
                    walk.uncovered.append(f"{where} of the {name} records no place")
                    return


def _blames(side: Side, report: OracleReport, step: Step) -> list[Blame]:
    violations = report.by_step.get((step.turn, step.step), [])
    return [Blame(side=side, invariant=v.invariant, witness=v.witness) for v in violations]


def _first_violations(side: Side, report: OracleReport) -> list[Blame]:
    """The first violation of each invariant, over the whole file."""
    firsts = [tally.first for tally in report.invariants.values() if tally.first is not None]
    return [Blame(side=side, invariant=v.invariant, witness=v.witness) for v in firsts]


def _start_differences(a: TraceReader, b: TraceReader, pairs: list[TurnPair]) -> list[str]:
    """What turns were given that was not meant to differ: the prompts of first turns (later turns contain the run's own
    output, which may), and where tokens are drawn, the seeds."""
    problems = []
    draws = a.manifest.sampling.rule != "greedy"
    for pair in pairs:
        start_a, start_b = a.turn_start(pair.a), b.turn_start(pair.b)
        if pair.a.prompt_turn == 0 and start_a.prompt_ids != start_b.prompt_ids:
            counts = f"{len(start_a.prompt_ids)} and {len(start_b.prompt_ids)} token ids"
            problems.append(f"prompt {pair.a.prompt_id}: {counts} that are not the same")
        seeds = (start_a.generator_seed, start_b.generator_seed)
        if draws and seeds[0] != seeds[1]:
            problems.append(f"{_name(pair)}: generator seed {seeds[0]} -> {seeds[1]}")
    return problems


def _unsaid(sides: _Sides) -> str:
    """Why no root explains that outputs differ."""
    if not both_draft(sides.a.manifest, sides.b.manifest) and sides.a.manifest.sampling.rule != "greedy":
        return "; a run that drafts nothing draws other coins"
    return ", and nothing that was recorded says where"


def _number_roots(turns: list[TurnMarks], numbers: dict[int, int]) -> None:
    """Gives the roots that pairs stand under the places that they have in the verdict."""
    for turn in turns:
        turn.pairs[:] = [p if p.root is None else p._replace(root=numbers[p.root]) for p in turn.pairs]


def _verdict(
    sides: _Sides,
    proof: ManifestComparison,
    incomparable: list[str],
    floors: list[NoiseFloor],
    walk: _Walk,
    options: DiffOptions,
    pairs: list[TurnPair],
) -> Verdict:
    a, b = sides.a, sides.b
    order = sorted(range(len(walk.findings.roots)), key=lambda at: walk.findings.roots[at].difference.kind in TIES)
    roots = [with_deciding(walk.findings.roots[at], sides.report_a, sides.report_b) for at in order]
    _number_roots(walk.marks or [], {old: new for new, old in enumerate(order)})
    violations = (
        []
        if incomparable
        else [
            *_first_violations("a", sides.report_a),
            *_first_violations("b", sides.report_b),
        ]
    )
    unjudged = not_supplied(a.manifest, "baseline") + not_supplied(b.manifest, "candidate")
    if not (is_decisive(a.manifest) and is_decisive(b.manifest)):
        walk.uncovered += unjudged
    kind = _conclude(walk, incomparable, violations)
    return Verdict(
        schema=VERDICT_SCHEMA,
        verdict=kind,
        exit_code=_exit_code(kind, options),
        baseline=printable(str(a.path)),
        candidate=printable(str(b.path)),
        rule=rule_text(a.manifest.sampling),
        axis=proof.axis,
        incomparable=incomparable,
        uncovered=walk.uncovered,
        unjudged=unjudged,
        floors=floors,
        num_turns=len(pairs),
        num_steps=walk.num_steps,
        num_regrouped=walk.num_regrouped,
        num_inherited=walk.findings.num_inherited,
        impact=impact_of(pairs, walk.tokens),
        drift=[Drift(field=f, count=int(n), largest=x) for f, (n, x) in sorted(walk.judge.drift.items())],
        roots=roots,
        violations=violations,
        next=next_commands(a, b, roots, violations, incomparable),
    )


def _conclude(walk: _Walk, incomparable: list[str], violations: list[Blame]) -> VerdictKind:
    roots = walk.findings.roots
    if incomparable:
        return "incomparable"
    if violations or any(root.difference.kind not in TIES for root in roots):
        return "different"
    if walk.uncovered:
        return "uncovered"
    return "ties" if roots else "equal"


def _exit_code(kind: VerdictKind, options: DiffOptions) -> int:
    codes = {
        "equal": EXIT_EQUAL,
        "ties": EXIT_DIFFERENT if options.fail_on_ties else EXIT_EQUAL,
        "different": EXIT_DIFFERENT,
        "incomparable": EXIT_INCOMPARABLE,
        "uncovered": EXIT_COVERAGE,
    }
    return codes[kind]
