"""The comparison of two traces: alignment proof, roots and what follows from them, the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from specscope.schemas import Step, TurnStart
from specscope.schemas.verdict import Blame, Difference, Drift, Place, Root, Verdict
from specscope.tracer.compare.align import Aligned, TurnPair, align_steps, align_turns
from specscope.tracer.compare.manifests import compare_manifests, is_teacher_only
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.phases import StepPair, compare_steps
from specscope.tracer.compare.tolerance import BY_DTYPE, FloatJudge
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_DIFFERENT, EXIT_EQUAL, EXIT_INCOMPARABLE
from specscope.tracer.index import TurnEntry
from specscope.tracer.invariants.base import Context
from specscope.tracer.oracle import step_violations
from specscope.tracer.reader import TraceReader

TIES = ("exact-tie", "near-tie")


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
    violations: dict[tuple[str, str], Blame] = field(default_factory=dict)
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
        walk = _Walk(FloatJudge(tolerance))
        turns = align_turns(a, b)
        walk.uncovered += _coverage(a, "baseline") + _coverage(b, "candidate")
        walk.uncovered += [f"only in the baseline: {name}" for name in turns.only_a]
        walk.uncovered += [f"only in the candidate: {name}" for name in turns.only_b]
        incomparable = proof.incomparable + _prompt_differences(a, b, turns.pairs)
        tokens_equal = True
        if not incomparable:
            for pair in turns.pairs:
                _compare_turn(_Sides(a, b), pair, walk)
                tokens_equal &= _outputs(a, pair.a) == _outputs(b, pair.b)
            if not turns.pairs:
                walk.uncovered.append("no turn is in both traces")
            elif walk.num_steps == 0 and any(t.a.steps or t.b.steps for t in turns.pairs):
                walk.uncovered.append("no pair of steps could be aligned")
            if not tokens_equal and not walk.roots:
                walk.uncovered.append("the outputs differ, and nothing that was recorded says where")
        kind, code = _conclude(walk, incomparable, options)
        return Verdict(
            schema="specscope.verdict/1.0",
            verdict=kind,
            exit_code=code,
            baseline=str(baseline),
            candidate=str(candidate),
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
            violations=list(walk.violations.values()),
        )


def _coverage(reader: TraceReader, name: str) -> list[str]:
    problems = []
    if reader.truncated:
        problems.append(f"the {name} is truncated: it has no run_end")
    if reader.index.torn_bytes:
        problems.append(f"the {name} ends in a torn record of {reader.index.torn_bytes} bytes")
    problems += [f"the {name} failed in phase {f.phase}: {f.error}: {f.message}" for f in reader.failures()]
    return problems


def _prompt_differences(a: TraceReader, b: TraceReader, pairs: list[TurnPair]) -> list[str]:
    """First turns whose prompts differ; later turns contain the run's own output, which may."""
    return [
        f"prompt {pair.a.prompt_id}: {len(ids_a)} and {len(ids_b)} token ids that are not the same"
        for pair in pairs
        if pair.a.prompt_turn == 0
        and (ids_a := a.turn_start(pair.a).prompt_ids) != (ids_b := b.turn_start(pair.b).prompt_ids)
    ]


def _outputs(reader: TraceReader, turn: TurnEntry) -> list[int] | None:
    end = reader.turn_end(turn)
    return None if end is None else end.output_ids


def _compare_turn(sides: _Sides, turns: TurnPair, walk: _Walk) -> None:
    start_a, start_b = sides.a.turn_start(turns.a), sides.b.turn_start(turns.b)
    if turns.a.prompt_turn == 0:
        walk.open = None
    if start_a.prompt_ids != start_b.prompt_ids:
        walk.num_inherited += max(len(turns.a.steps), len(turns.b.steps))
        return
    if turns.a.prompt_turn > 0 and walk.open is not None and walk.open.is_tie:
        walk.open = None
    _compare_prefill(walk, turns, start_a, start_b)
    for pair in align_steps(sides.a, sides.b, turns):
        walk.num_steps += 1
        walk.num_regrouped += pair.regrouped
        blame = _blame(sides, pair, start_a, start_b)
        for violated in blame:
            walk.violations.setdefault((violated.side, violated.invariant), violated)
        if not pair.same_context:
            _inherit(walk)
            continue
        found = compare_steps(_step_pair(sides, pair, walk.judge))
        place = Place(
            turn=turns.a.turn,
            prompt_id=turns.a.prompt_id,
            prompt_turn=turns.a.prompt_turn,
            position=pair.position,
            step_a=pair.a.step,
            step_b=pair.b.step,
        )
        _file(walk, place, found, blame)


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
    )


def _compare_prefill(walk: _Walk, turns: TurnPair, a: TurnStart, b: TurnStart) -> None:
    """The first pending token: a difference there is a root of phase verify."""
    pa, pb = a.prefill, b.prefill
    if pa.pending_token == pb.pending_token:
        for x, y in zip(pa.top_logits, pb.top_logits, strict=False):
            walk.judge.same("prefill.top_logits", x, y)
        return
    margins = [p.top_logits[0] - p.top_logits[-1] for p in (pa, pb)]
    tie = max(margins) <= 2 * walk.judge.tolerance and {pa.pending_token, pb.pending_token} <= set(pa.top_tokens)
    difference = Difference(
        phase="verify",
        field="prefill.pending_token",
        a=str(pa.pending_token),
        b=str(pb.pending_token),
        kind="near-tie" if tie else "real",
        inputs_equal=True,
        margin_a=margins[0],
        margin_b=margins[1],
    )
    place = Place(
        turn=turns.a.turn,
        prompt_id=turns.a.prompt_id,
        prompt_turn=turns.a.prompt_turn,
        position=len(a.prompt_ids),
        step_a=0,
        step_b=0,
    )
    _file(walk, place, [difference], [])


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
