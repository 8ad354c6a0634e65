"""The comparison of two traces: alignment proof, roots and what follows from them, the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from specscope.schemas import Step, TurnStart
from specscope.schemas.verdict import VERDICT_SCHEMA, Blame, Difference, Drift, Place, Root, Verdict
from specscope.tracer.compare.align import Aligned, TurnPair, align_steps, align_turns
from specscope.tracer.compare.manifests import compare_manifests, is_teacher_only
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.prefill import compare_prefills
from specscope.tracer.compare.steps import StepPair
from specscope.tracer.compare.tolerance import BY_DTYPE, FloatJudge
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_DIFFERENT, EXIT_EQUAL, EXIT_INCOMPARABLE
from specscope.tracer.index import TurnEntry
from specscope.tracer.invariants.base import Context
from specscope.tracer.oracle import check_trace, step_violations
from specscope.tracer.reader import TraceReader
from specscope.tracer.rules import rule_text
from specscope.tracer.text import printable

TIES = ("exact-tie", "near-tie")
COMPARED = ("tree", "tensors", "verify", "accept", "commit", "stop")
MISSHAPEN = ("tensors.sizes", "verify.sizes")


@dataclass(frozen=True)
class DiffOptions:
    """What the user may set."""

    tolerance: float | None = None  # None: by the baseline's dtype
    allowed: frozenset[str] = frozenset()  # manifest fields that may differ
    fail_on_ties: bool = False


@dataclass
class _Open:
    """A root whose consequences are still seen."""

    root: Root
    is_tie: bool


@dataclass
class _Walk:
    """What has been found so far."""

    judge: FloatJudge
    roots: list[Root] = field(default_factory=list)
    open: _Open | None = None
    violations: list[Blame] = field(default_factory=list)
    num_steps: int = 0
    num_regrouped: int = 0
    num_inherited: int = 0
    uncovered: list[str] = field(default_factory=list)


class _Sides:
    """The two readers and what is constant for the pair."""

    def __init__(self, a: TraceReader, b: TraceReader) -> None:
        self.a, self.b = a, b
        self.trees_compared = not (is_teacher_only(a.manifest) or is_teacher_only(b.manifest))


def diff_traces(baseline: Path, candidate: Path, options: DiffOptions | None = None) -> Verdict:
    """Compares the traces at ``baseline`` (a) and ``candidate`` (b).

    Raises:
        TraceError: where one of them cannot be read.
    """
    options = options or DiffOptions()
    with TraceReader(baseline) as a, TraceReader(candidate) as b:
        dtype = a.manifest.dtype
        tolerance = options.tolerance if options.tolerance is not None else BY_DTYPE.get(dtype, 1e-3)
        source = "given" if options.tolerance is not None else f"default for {dtype}; no noise floor was measured"
        proof = compare_manifests(a.manifest, b.manifest, options.allowed)
        sides, walk = _Sides(a, b), _Walk(FloatJudge.of(tolerance, a.manifest))
        turns = align_turns(a, b)
        walk.uncovered += _coverage(a, "baseline") + _coverage(b, "candidate")
        walk.uncovered += _unrecorded(a, "baseline") + _unrecorded(b, "candidate")
        walk.uncovered += [f"only in the baseline: {name}" for name in turns.only_a]
        walk.uncovered += [f"only in the candidate: {name}" for name in turns.only_b]
        incomparable = proof.incomparable + _start_differences(a, b, turns.pairs)
        tokens_equal = True
        if not incomparable:
            for pair in turns.pairs:
                explained = len(walk.roots)
                _compare_turn(sides, pair, walk)
                equal = _outputs(a, pair.a) == _outputs(b, pair.b)
                if not equal and len(walk.roots) == explained and walk.open is None:
                    name = f"{pair.a.prompt_id} turn {pair.a.prompt_turn + 1}"
                    walk.uncovered.append(f"{name}: the outputs differ{_unsaid(sides)}")
                tokens_equal &= equal
            walk.violations = [*_violations("a", baseline), *_violations("b", candidate)]
            if not turns.pairs:
                walk.uncovered.append("no turn is in both traces")
            elif walk.num_steps == 0 and any(t.a.steps or t.b.steps for t in turns.pairs):
                walk.uncovered.append("no pair of steps could be aligned")
        kind, code = _conclude(walk, incomparable, options)
        return Verdict(
            schema=VERDICT_SCHEMA,
            verdict=kind,
            exit_code=code,
            baseline=printable(str(baseline)),
            candidate=printable(str(candidate)),
            rule=rule_text(a.manifest.sampling),
            axis=proof.axis,
            incomparable=incomparable,
            uncovered=walk.uncovered,
            tolerance=tolerance,
            tolerance_source=source,
            num_turns=len(turns.pairs),
            num_steps=walk.num_steps,
            num_regrouped=walk.num_regrouped,
            num_inherited=walk.num_inherited,
            tokens_equal=tokens_equal,
            drift=[Drift(field=f, count=int(n), largest=x) for f, (n, x) in sorted(walk.judge.drift.items())],
            roots=sorted(walk.roots, key=lambda r: r.difference.kind in TIES),
            violations=walk.violations,
        )


def _unsaid(sides: _Sides) -> str:
    """Why no root explains that outputs differ."""
    if not sides.trees_compared and sides.a.manifest.sampling.rule != "greedy":
        return "; a run that drafts nothing draws other coins"
    return ", and nothing that was recorded says where"


def _end_reason(reader: TraceReader) -> str | None:
    end = reader.run_end()
    return None if end is None else end.reason


def _coverage(reader: TraceReader, name: str) -> list[str]:
    problems = []
    if reader.truncated:
        problems.append(f"the {name} is truncated: it has no run_end")
    if reader.index.torn_bytes:
        problems.append(f"the {name} ends in a torn record of {reader.index.torn_bytes} bytes")
    problems += [f"the {name} was {reason}" for reason in {_end_reason(reader)} & {"failed", "interrupted"}]
    problems += [f"the {name} failed in phase {f.phase}: {f.error}: {f.message}" for f in reader.failures()]
    return problems


def _unrecorded(reader: TraceReader, name: str) -> list[str]:
    """What the writer says that it does not supply, of that which a diff lives on."""
    given = {capability.split(".")[0] for capability in reader.manifest.capabilities}
    missing = [section for section in COMPARED if section not in given]
    return [f"the {name} does not record {', '.join(missing)}"] if missing else []


def _violations(side: Literal["a", "b"], path: Path) -> list[Blame]:
    """The oracle's first violation of each invariant, over the whole file."""
    tallies = check_trace(path).invariants.values()
    return [Blame(side=side, invariant=t.first.invariant, witness=t.first.witness) for t in tallies if t.first]


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
            name = f"prompt {pair.a.prompt_id} turn {pair.a.prompt_turn + 1}"
            problems.append(f"{name}: generator seed {seeds[0]} -> {seeds[1]}")
    return problems


def _outputs(reader: TraceReader, turn: TurnEntry) -> list[int] | None:
    end = reader.turn_end(turn)
    return None if end is None else end.output_ids


def _compare_turn(sides: _Sides, turns: TurnPair, walk: _Walk) -> None:
    start_a, start_b = sides.a.turn_start(turns.a), sides.b.turn_start(turns.b)
    if turns.a.prompt_turn == 0:
        walk.open = None
    if start_a.prompt_ids != start_b.prompt_ids:
        walk.num_inherited += max(len(turns.a.steps), len(turns.b.steps))
        if walk.open is None:
            walk.uncovered.append(f"{turns.a.prompt_id} turn {turns.a.prompt_turn + 1}: the contexts differ")
        return
    if turns.a.prompt_turn > 0 and walk.open is not None and walk.open.is_tie:
        walk.open = None
    found = compare_prefills(walk.judge, start_a.prefill, start_b.prefill)
    if found is not None:
        _file(walk, _prefill_place(turns, start_a), [found], [])
    for pair in align_steps(sides.a, sides.b, turns):
        walk.num_steps += 1
        walk.num_regrouped += pair.regrouped
        if not pair.same_context:
            _inherit(walk)
            continue
        place = Place(
            turn=turns.a.turn,
            turn_b=turns.b.turn,
            prompt_id=turns.a.prompt_id,
            prompt_turn=turns.a.prompt_turn,
            position=pair.position,
            step_a=pair.a.step,
            step_b=pair.b.step,
        )
        blame = _blame(sides, pair, start_a, start_b)
        if any(found.invariant in MISSHAPEN for found in blame):
            walk.uncovered.append(f"{turns.a.prompt_id} step {pair.b.step}: its lists do not fit together")
            continue
        _file(walk, place, compare_steps(_step_pair(sides, pair, walk.judge)), blame)
    _note_unaligned(walk, turns, sides)


def _note_unaligned(walk: _Walk, turns: TurnPair, sides: _Sides) -> None:
    """Says where a step's place was not recorded, so that what follows it could not be aligned."""
    for name, reader, turn in (("baseline", sides.a, turns.a), ("candidate", sides.b, turns.b)):
        for step in reader.steps(turn):
            if step.stop is None and step.commit is None and step.tensors is None:
                walk.uncovered.append(f"{turn.prompt_id} step {step.step} of the {name} records no place")
                return


def _step_pair(sides: _Sides, pair: Aligned, judge: FloatJudge) -> StepPair:
    def nodes(step: Step | None) -> StepNodes | None:
        return None if step is None else StepNodes(step)

    return StepPair(
        StepNodes(pair.a),
        StepNodes(pair.b),
        nodes(pair.previous_a),
        nodes(pair.previous_b),
        judge,
        sides.trees_compared,
        pair.regrouped > 0,
    )


def _prefill_place(turns: TurnPair, start: TurnStart) -> Place:
    return Place(
        turn=turns.a.turn,
        turn_b=turns.b.turn,
        prompt_id=turns.a.prompt_id,
        prompt_turn=turns.a.prompt_turn,
        position=len(start.prompt_ids),
        step_a=0,
        step_b=0,
    )


def _blame(sides: _Sides, pair: Aligned, start_a: TurnStart, start_b: TurnStart) -> list[Blame]:
    found = []
    for side, reader, start, previous, step in (
        ("a", sides.a, start_a, pair.previous_a, pair.a),
        ("b", sides.b, start_b, pair.previous_b, pair.b),
    ):
        context = Context(reader.manifest, start, previous, step)
        found += [
            Blame(side="a" if side == "a" else "b", invariant=v.invariant, witness=v.witness)
            for v in step_violations(context)
        ]
    return found


def _inherit(walk: _Walk) -> None:
    walk.num_inherited += 1
    if walk.open is not None:
        root = walk.open.root
        walk.open.root = root.model_copy(update={"inherited": root.inherited + 1})
        walk.roots[-1] = walk.open.root


def _file(walk: _Walk, place: Place, found: list[Difference], blame: list[Blame]) -> None:
    """Files one step's differences under a root: a new one, or the one that is open."""
    if not found:
        walk.open = None  # the two runs are at one again
        return
    real = [d for d in found if d.inputs_equal and d.kind not in TIES]
    ties = [d for d in found if d.inputs_equal and d.kind in TIES]
    if walk.open is not None and (not walk.open.is_tie or not real):
        _inherit(walk)
        return
    first = real[0] if real else ties[0] if ties else found[0]
    root = Root(place=place, difference=first, also=len(found) - 1, inherited=0, blame=blame)
    walk.roots.append(root)
    walk.open = _Open(root, is_tie=first.kind in TIES)


class _Conclusion(NamedTuple):
    verdict: Literal["equal", "ties", "different", "incomparable", "uncovered"]
    exit_code: int


def _conclude(walk: _Walk, incomparable: list[str], options: DiffOptions) -> _Conclusion:
    if incomparable:
        return _Conclusion("incomparable", EXIT_INCOMPARABLE)
    if any(root.difference.kind not in TIES for root in walk.roots) or walk.violations:
        return _Conclusion("different", EXIT_DIFFERENT)
    if walk.uncovered:
        return _Conclusion("uncovered", EXIT_COVERAGE)
    if walk.roots:
        return _Conclusion("ties", EXIT_DIFFERENT if options.fail_on_ties else EXIT_EQUAL)
    return _Conclusion("equal", EXIT_EQUAL)
