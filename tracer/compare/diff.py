"""The comparison of two traces: alignment proof, roots and what follows from them, the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from specscope.schemas import Manifest, Prefill, Step
from specscope.schemas.verdict import (
    TIES,
    VERDICT_SCHEMA,
    Blame,
    Difference,
    Drift,
    NoiseFloor,
    Place,
    Root,
    Side,
    Verdict,
    VerdictKind,
)
from specscope.tracer.compare.align import Aligned, TurnPair, align_steps, align_turns
from specscope.tracer.compare.allowed import NOTHING_FOLLOWS, Consequences, check_allowed, consequences
from specscope.tracer.compare.commands import next_commands
from specscope.tracer.compare.coverage import COMPARED, Coverage, coverage_problems, in_part, is_decisive, not_supplied
from specscope.tracer.compare.deciding import with_deciding
from specscope.tracer.compare.drift import measure_drift
from specscope.tracer.compare.excess import UniformDrift, movement, uniform_drift
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.identity import one_run_remarks
from specscope.tracer.compare.impact import Tokens, impact_of, outputs_differ, shared_tokens, steps_within
from specscope.tracer.compare.manifests import (
    ManifestComparison,
    both_draft,
    compare_manifests,
    loaded_otherwise,
    same_policy,
)
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.noise import given_floors, measured_floors, noise_floors, sensitivity
from specscope.tracer.compare.phases import compare_steps, compared_phases, trees_may_differ
from specscope.tracer.compare.prefill import compare_prefill_logits, compare_prefills
from specscope.tracer.compare.roots import Filed, Findings, PairState
from specscope.tracer.compare.roundings import coarser
from specscope.tracer.compare.steps import StepPair
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_DIFFERENT, EXIT_EQUAL, EXIT_INCOMPARABLE, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import MISSHAPEN, OracleReport, check_trace
from specscope.tracer.oracle.unknown import unknown_lines
from specscope.tracer.words.places import turn_name, turns_name
from specscope.tracer.words.rules import is_lossy, rule_text
from specscope.tracer.words.text import printable

if TYPE_CHECKING:
    from _typeshed import StrPath


@dataclass(frozen=True)
class DiffOptions:
    """What the user may set."""

    tolerance: float | None = None  # None: the noise floor is measured
    allowed: frozenset[str] = frozenset()  # manifest fields that may differ
    fail_on_ties: bool = False
    noise: StrPath | None = None  # a run that differs from the baseline by noise alone


class _Sides(NamedTuple):
    """The two runs, and what the oracle said of each."""

    a: TraceReader
    b: TraceReader
    report_a: OracleReport
    report_b: OracleReport

    def is_misshapen(self, step_a: Step, step_b: Step) -> bool:
        """Whether the lists of one of two aligned steps do not fit together."""
        return any(violated.invariant in MISSHAPEN for violated in self.blame(step_a, step_b))

    def is_broken(self, step_a: Step, step_b: Step) -> bool:
        """Whether one of two aligned steps violates an invariant."""
        return bool(self.blame(step_a, step_b))

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

    def blame_turn(self, turns: TurnPair, *, prefill: bool) -> list[Blame]:
        """What the oracle found violated of two turns as a whole: of their prefills, or of all behind them."""
        sides: tuple[tuple[Side, OracleReport, int], ...] = (
            ("a", self.report_a, turns.a.turn),
            ("b", self.report_b, turns.b.turn),
        )
        return [
            Blame(side=side, invariant=found.invariant, witness=found.witness)
            for side, report, turn in sides
            for found in report.by_turn.get(turn, [])
            if (found.invariant == "turn.prefill") is prefill
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
    drift: UniformDrift | None = None
    marks: list[TurnMarks] | None = None  # kept where they are asked for: they grow with the trace
    num_steps: int = 0
    num_regrouped: int = 0
    uncovered: list[str] = field(default_factory=list)
    tokens: Tokens = field(default_factory=Tokens)
    coverage: Coverage = field(default_factory=Coverage)
    expected: Consequences = NOTHING_FOLLOWS
    num_beyond: int = 0
    unjudged: list[str] = field(default_factory=list)
    parted: set[str] = field(default_factory=set)  # prompts whose turns came to other tokens, as they may


def diff_traces(
    baseline: StrPath,
    candidate: StrPath,
    options: DiffOptions | None = None,
    *,
    watch: Callable[[int], None] | None = None,
) -> Verdict:
    """Compares the traces at ``baseline`` (a) and ``candidate`` (b).

    Both are read twice, to be checked and to be compared; ``watch`` is called with the bytes read since.

    Raises:
        TraceError: where one of them cannot be read.
        UsageError: where the run to measure noise on cannot tell the noise of this pair.
    """
    return _compared(Path(baseline), Path(candidate), options or DiffOptions(), watch=watch)


def compare_traces(baseline: StrPath, candidate: StrPath, options: DiffOptions | None = None) -> Comparison:
    """As ``diff_traces``, with the state of every pair of steps: some 100 bytes of memory each.

    Raises:
        TraceError: where one of them cannot be read.
        UsageError: where the run to measure noise on cannot tell the noise of this pair.
    """
    marks: list[TurnMarks] = []
    return Comparison(_compared(Path(baseline), Path(candidate), options or DiffOptions(), marks=marks), marks)


def _compared(
    baseline: Path,
    candidate: Path,
    options: DiffOptions,
    *,
    marks: list[TurnMarks] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Verdict:
    check_allowed(options.allowed)
    with TraceReader(baseline) as a, TraceReader(candidate) as b:
        proof = compare_manifests(a.manifest, b.manifest, options.allowed)
        turns = align_turns(a, b)
        expected = consequences(a.manifest, b.manifest, proof.let)
        incomparable = proof.incomparable + _start_differences(a, b, turns.pairs, options)
        sides = _Sides(a, b, check_trace(baseline, watch=watch), check_trace(candidate, watch=watch))
        noise = _Noise([], None) if incomparable else _noise(sides, options)
        floors = noise.floors
        alone = bool(a.manifest.replay_of or b.manifest.replay_of)
        judge = FloatJudge.of(floors, a.manifest)
        walk = _Walk(judge, Findings(steps_stand_alone=alone), noise.drift, marks, expected=expected)
        walk.uncovered += coverage_problems(a, "baseline") + coverage_problems(b, "candidate")
        walk.uncovered += sides.forgotten()
        if not alone:  # a replay may be of some turns alone
            walk.uncovered += [f"only in the baseline: {name}" for name in turns.only_a]
            walk.uncovered += [f"only in the candidate: {name}" for name in turns.only_b]
        if not incomparable:
            num_bytes = baseline.stat().st_size + candidate.stat().st_size
            for pair in turns.pairs:
                _compare_turn(sides, pair, walk)
                if watch is not None:
                    watch(num_bytes // len(turns.pairs))
            if not turns.pairs:
                walk.uncovered.append("no turn is in both traces")
            elif walk.num_steps == walk.num_beyond == 0 and any(t.a.steps or t.b.steps for t in turns.pairs):
                walk.uncovered.append("no pair of steps could be aligned")
        return _verdict(sides, proof, incomparable, floors, walk, options, turns.pairs)


class _Noise(NamedTuple):
    """What is noise in this pair, and what of the pair is none on the whole."""

    floors: list[NoiseFloor]
    drift: UniformDrift | None


def _noise(sides: _Sides, options: DiffOptions) -> _Noise:
    """Given, or measured on the run of ``--noise``, or on the pair itself."""
    a, b = sides.a, sides.b
    if options.tolerance is not None:
        return _Noise(given_floors(coarser(a.manifest.dtype, b.manifest.dtype), options.tolerance), None)
    pair, num_layers = measure_drift(a, b, sides.is_broken), a.manifest.teacher.num_layers
    if options.noise is None:
        floors = measured_floors(pair, num_layers)
        return _Noise(floors, uniform_drift(pair, floors, "dtype"))
    with TraceReader(options.noise) as other:
        problem = _not_noise(a, b, other, options)
        if problem is not None:
            raise UsageError(
                f"{options.noise} cannot tell the noise of {a.path}: {problem}; record an honest run once more"
            )
        same_mode = other.manifest.attention == b.manifest.attention
        floors = noise_floors(pair, measure_drift(a, other), num_layers, same_mode=same_mode)
        found = uniform_drift(pair, floors, "noise-file")
        if found is None:
            found = movement(other.manifest, b.manifest, measure_drift(other, b))
        return _Noise(floors, found)


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
    last = _compare_steps_of(sides, turns, walk)
    ends = sides.a.turn_end(turns.a), sides.b.turn_end(turns.b)
    shared = shared_tokens(*ends, walk.expected.ends)
    if shared is not None:
        walk.parted.add(turns.a.prompt_id)
        beyond = [len(turn.steps) - steps_within(turn.accepted_lengths, shared) for turn in turns]
        walk.num_beyond += sum(beyond)
        walk.num_regrouped = max(0, walk.num_regrouped - sum(beyond))
    explained = len(walk.findings.roots) > before or walk.findings.is_open
    if outputs_differ(*ends, walk.expected.ends) and not explained:
        _note_outputs(sides, turns, walk, last)
    walk.tokens.add(turns.a.turn, *ends, walk.expected.ends)


def _note_outputs(sides: _Sides, turns: TurnPair, walk: _Walk, last: Place | None) -> None:
    """Outputs that no root explains: allowed, or the work of the side whose turn breaks an invariant, or not judged."""
    name = _name(turns)
    if walk.expected.outputs_may_differ:
        walk.parted.add(turns.a.prompt_id)
        walk.unjudged.append(f"{name}: the outputs differ, which follows from what was allowed to differ")
        return
    blame = sides.blame_turn(turns, prefill=False)
    if last is None or len({found.side for found in blame}) != 1:
        walk.uncovered.append(f"{name}: the outputs differ{_unsaid(sides)}")
    else:
        walk.findings.file(last, [], blame)


def _compare_steps_of(sides: _Sides, turns: TurnPair, walk: _Walk) -> Place | None:
    """Compares the aligned steps of a turn, and gives the place of the last pair."""
    start_a, start_b = sides.a.turn_start(turns.a), sides.b.turn_start(turns.b)
    walk.tokens.reused_a += start_a.reused_length
    walk.tokens.reused_b += start_b.reused_length
    findings = walk.findings
    if turns.a.prompt_turn == 0:
        findings.close()
    if start_a.prompt_ids != start_b.prompt_ids:
        _pass_over(turns, walk)
        return None
    if turns.a.prompt_turn > 0 and not findings.real_is_open:
        findings.close()
    place = _place(turns, len(start_a.prompt_ids), 0, 0)
    if walk.drift is not None and walk.drift.begins_at(turns.a.turn, None):
        _begin_drift(walk, walk.drift, place)
    found = _compare_prefills_of(start_a.prefill, start_b.prefill, walk)
    if found is not None:
        findings.file(place, [found], sides.blame_turn(turns, prefill=True))
    marks = TurnMarks(turns.a.turn, turns.b.turn, [])
    if walk.marks is not None:
        walk.marks.append(marks)
    num_pairs = 0
    for pair in align_steps(sides.a, sides.b, turns):
        num_pairs += 1
        place = _place(turns, pair.position, pair.a.step, pair.b.step) if not pair.equal else place
        filed = _compare_pair(sides, turns, pair, walk)
        if walk.marks is not None:
            marks.pairs.append(PairMark(pair.step_a, pair.step_b, pair.position, *filed, pair.same_context))
    walk.num_steps += num_pairs
    walk.num_regrouped += len(turns.a.steps) + len(turns.b.steps) - 2 * num_pairs
    _note_unaligned(walk, turns, sides)
    return place if num_pairs else None


def _compare_prefills_of(a: Prefill, b: Prefill, walk: _Walk) -> Difference | None:
    walk.coverage.add_prefill(a, b)
    if "verify" in walk.expected.phases:
        return None
    if walk.expected.outputs_may_differ:
        return compare_prefill_logits(walk.judge, a, b)
    return compare_prefills(walk.judge, a, b)


def _pass_over(turns: TurnPair, walk: _Walk) -> None:
    """A turn whose contexts differ, of which nothing is compared."""
    name = _name(turns)
    if walk.findings.is_open or turns.a.prompt_id not in walk.parted:
        if not walk.findings.is_open:
            walk.uncovered.append(f"{name}: the contexts differ")
        for _ in range(max(len(turns.a.steps), len(turns.b.steps))):
            walk.findings.inherit()
    else:
        walk.unjudged.append(f"{name}: its context holds what was allowed to differ, so it is not compared")
    if walk.marks is not None:
        walk.marks.append(TurnMarks(turns.a.turn, turns.b.turn, [], same_prompt=False))


def _compare_pair(sides: _Sides, turns: TurnPair, pair: Aligned, walk: _Walk) -> Filed:
    findings = walk.findings
    if not pair.same_context:
        apart = walk.expected.outputs_may_differ and not findings.is_open
        return Filed("unjudged") if apart else findings.inherit()
    if walk.drift is not None and walk.drift.begins_at(turns.a.turn, pair.step_a):
        _begin_drift(walk, walk.drift, _place(turns, pair.position, pair.a.step, pair.b.step))
    if pair.equal:
        walk.coverage.add_equal(pair.line_b.line)
        findings.close()
        return Filed("equal")
    if sides.is_misshapen(pair.a, pair.b):
        name = turn_name(turns.b.turn, turns.b.prompt_id)
        walk.uncovered.append(f"{name}, step {pair.b.step} of the candidate: its lists do not fit together")
        return Filed("unjudged")
    steps = _step_pair(pair, sides.a, sides.b, walk)
    found = compare_steps(steps)
    walk.coverage.add(pair.a, pair.b, compared_phases(steps))
    walk.coverage.other_trees += trees_may_differ(steps)
    blame = sides.blame(pair.a, pair.b)
    if found and found[0].phase == "stop":  # how a turn ends is a matter of the whole turn
        blame += sides.blame_turn(turns, prefill=False)
    return findings.file(_place(turns, pair.position, pair.a.step, pair.b.step), found, blame)


def _begin_drift(walk: _Walk, drift: UniformDrift, place: Place) -> None:
    """Files the drift of all numbers as a root."""
    root = Root(
        place=place,
        difference=drift.difference,
        also=drift.also,
        inherited=0,
        blame=[],
        wrong="neither",
        drift=drift.finding,
    )
    walk.findings.begin_drift(root, drift.explains)


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


def _step_pair(pair: Aligned, a: TraceReader, b: TraceReader, walk: _Walk) -> StepPair:
    """What ``compare_steps`` takes, for two aligned steps of the runs ``a`` and ``b``."""

    def nodes(step: Step | None) -> StepNodes | None:
        return None if step is None else StepNodes(step)

    return StepPair(
        StepNodes(pair.a),
        StepNodes(pair.b),
        nodes(pair.previous_a),
        nodes(pair.previous_b),
        walk.judge,
        trees_compared=both_draft(a.manifest, b.manifest),
        same_policy=same_policy(a.manifest.tree_policy, b.manifest.tree_policy) and walk.expected.same_trees,
        fixed_shape=_has_fixed_shape(a.manifest),
        order_matters=_has_fixed_shape(a.manifest) or a.manifest.sampling.rule != "greedy",
        regrouped=pair.regrouped > 0,
        expected=walk.expected,
        in_part=in_part(a.manifest) | in_part(b.manifest),
    )


def _has_fixed_shape(manifest: Manifest) -> bool:
    return manifest.tree_policy.kind in ("static", "chain")


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


def _start_differences(a: TraceReader, b: TraceReader, pairs: list[TurnPair], options: DiffOptions) -> list[str]:
    """What turns were given that was not meant to differ: the prompts of first turns (later turns contain the run's own
    output, which may), and where tokens are drawn, the seeds."""
    problems = []
    draws = a.manifest.sampling.rule != "greedy" and "seed" not in options.allowed
    for pair in pairs:
        start_a, start_b = a.turn_start(pair.a), b.turn_start(pair.b)
        if pair.a.prompt_turn == 0 and start_a.prompt_ids != start_b.prompt_ids:
            counts = f"{len(start_a.prompt_ids)} and {len(start_b.prompt_ids)} token ids"
            problems.append(f"prompt {pair.a.prompt_id}: {counts} that are not the same")
        seeds = (start_a.generator_seed, start_b.generator_seed)
        if draws and None not in seeds and seeds[0] != seeds[1]:
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
    unjudged += walk.coverage.lines(a.manifest, b.manifest) + walk.unjudged
    loaded = loaded_otherwise(a.manifest, b.manifest)
    kind = _conclude(walk, incomparable, violations, loaded)
    return Verdict(
        schema=VERDICT_SCHEMA,
        verdict=kind,
        exit_code=_exit_code(kind, options),
        baseline=printable(str(a.path)),
        candidate=printable(str(b.path)),
        rule=rule_text((b if is_lossy(b.manifest.sampling) else a).manifest.sampling),
        axis=proof.axis,
        incomparable=incomparable,
        uncovered=walk.uncovered,
        unjudged=unjudged,
        unknown=[
            *(f"in the baseline: {line}" for line in unknown_lines(sides.report_a)),
            *(f"in the candidate: {line}" for line in unknown_lines(sides.report_b)),
        ],
        floors=floors,
        num_turns=len(pairs),
        num_steps=walk.num_steps,
        num_regrouped=walk.num_regrouped,
        num_beyond=walk.num_beyond,
        compared={phase: walk.coverage.phases[phase] for phase in COMPARED if walk.coverage.phases[phase]},
        num_inherited=walk.findings.num_inherited,
        impact=impact_of(pairs, walk.tokens),
        drift=[Drift(field=f, count=int(n), largest=x) for f, (n, x) in sorted(walk.judge.drift.items())],
        roots=roots,
        violations=violations,
        next=next_commands(a, b, roots, violations, incomparable),
        remarks=one_run_remarks(a, b),
        loaded=loaded,
        sensitivity=sensitivity(floors),
    )


def _conclude(walk: _Walk, incomparable: list[str], violations: list[Blame], loaded: list[str]) -> VerdictKind:
    roots = walk.findings.roots
    if incomparable:
        return "incomparable"
    if violations or loaded or any(root.difference.kind not in TIES for root in roots):
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
