"""The verdict: roots in order, what was and was not compared, and what that comes to."""

from __future__ import annotations

from dataclasses import dataclass

from specscope.schemas.phases import COMPARED_PHASES
from specscope.schemas.verdict import TIES, VERDICT_SCHEMA, Blame, Drift, Impact, NoiseFloor, Root, Verdict, VerdictKind
from specscope.tracer.compare.align import TurnAlignment
from specscope.tracer.compare.commands import next_commands, runs_again
from specscope.tracer.compare.coverage import is_decisive, not_supplied
from specscope.tracer.compare.deciding import with_deciding
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.identity import one_run_remarks
from specscope.tracer.compare.impact import impact_of
from specscope.tracer.compare.lengths import MORE_THAN_LENGTHS, are_lengths, with_known_tokens
from specscope.tracer.compare.manifests import ManifestComparison, fallback_remarks, loaded_otherwise, name_remarks
from specscope.tracer.compare.marks import TurnMarks
from specscope.tracer.compare.noise import sensitivity
from specscope.tracer.compare.roundings import cache_remarks, dtype_remarks
from specscope.tracer.compare.sides import Sides, first_violations
from specscope.tracer.compare.turns import Walk
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_DIFFERENT, EXIT_EQUAL, EXIT_INCOMPARABLE
from specscope.tracer.naming.rules import is_lossy, rule_text
from specscope.tracer.naming.text import counted, printable
from specscope.tracer.oracle.unknown import unknown_lines


@dataclass(frozen=True, kw_only=True)
class Compared:
    """All that a verdict is drawn from."""

    sides: Sides
    proof: ManifestComparison
    incomparable: list[str]  # that of the proof, and what the turns were given
    floors: list[NoiseFloor]
    walk: Walk
    turns: TurnAlignment
    fail_on_ties: bool


def verdict_of(c: Compared) -> Verdict:
    """The whole comparison. Gives the marks of the walk the numbers that their roots have in it."""
    a, b, walk = c.sides.a, c.sides.b, c.walk
    roots = _ordered_roots(c)
    violations = [] if c.incomparable else _violations(c.sides)
    unsupplied = not_supplied(a.manifest, "baseline") + not_supplied(b.manifest, "candidate")
    if not are_lengths(a.manifest, b.manifest) and not (is_decisive(a.manifest) and is_decisive(b.manifest)):
        walk.uncovered += unsupplied
    loaded = loaded_otherwise(a.manifest, b.manifest)
    kind = _conclude(walk, c.incomparable, violations, loaded)
    return Verdict(
        schema=VERDICT_SCHEMA,
        verdict=kind,
        exit_code=_exit_code(kind, fail_on_ties=c.fail_on_ties),
        baseline=printable(str(a.path)),
        candidate=printable(str(b.path)),
        rule=rule_text((b if is_lossy(b.manifest.sampling) else a).manifest.sampling),
        axis=c.proof.axis,
        incomparable=c.incomparable,
        uncovered=walk.uncovered,
        unjudged=[*unsupplied, *walk.coverage.lines(a.manifest, b.manifest), *walk.unjudged],
        unknown=_unknown(c.sides),
        floors=c.floors,
        num_turns=len(c.turns.pairs),
        num_steps=walk.num_steps,
        num_regrouped=walk.num_regrouped,
        num_beyond=walk.num_beyond,
        compared={phase: walk.coverage.phases[phase] for phase in COMPARED_PHASES if walk.coverage.phases[phase]},
        num_inherited=walk.findings.num_inherited,
        impact=_impact(c),
        drift=_drift(walk.judge),
        roots=roots,
        violations=violations,
        runs_again=runs_again(a.manifest) and runs_again(b.manifest),
        next=next_commands(a, b, roots=roots, violations=violations, incomparable=c.incomparable),
        remarks=_remarks(c),
        loaded=loaded,
        sensitivity=sensitivity(c.floors),
    )


def _impact(c: Compared) -> Impact:
    impact = impact_of(c.turns.pairs, c.walk.tokens)
    only_lengths = are_lengths(c.sides.a.manifest, c.sides.b.manifest)
    return with_known_tokens(impact, c.sides, c.turns.pairs) if only_lengths else impact


def _ordered_roots(c: Compared) -> list[Root]:
    """Real roots before ties, each in the order of the steps."""
    roots = c.walk.findings.roots
    order = sorted(range(len(roots)), key=lambda number: roots[number].difference.kind in TIES)
    _number_roots(c.walk.marks or [], {old: new for new, old in enumerate(order)})
    if are_lengths(c.sides.a.manifest, c.sides.b.manifest):
        hint = {"deciding": [MORE_THAN_LENGTHS]}
        return [roots[n] if roots[n].blame else roots[n].model_copy(update=hint) for n in order]
    return [with_deciding(roots[number], c.sides.report_a, c.sides.report_b) for number in order]


def _number_roots(turns: list[TurnMarks], numbers: dict[int, int]) -> None:
    """Renumbers the roots of pairs by their places in the verdict."""
    for turn in turns:
        turn.pairs[:] = [p if p.root is None else p._replace(root=numbers[p.root]) for p in turn.pairs]


def _violations(sides: Sides) -> list[Blame]:
    return [*first_violations("a", sides.report_a), *first_violations("b", sides.report_b)]


def _unknown(sides: Sides) -> list[str]:
    """The fields of either side that no version known to this reader has."""
    return [
        *(f"in the baseline: {line}" for line in unknown_lines(sides.report_a)),
        *(f"in the candidate: {line}" for line in unknown_lines(sides.report_b)),
    ]


def _remarks(c: Compared) -> list[str]:
    """What makes the verdict worth less than it reads."""
    a, b = c.sides.a, c.sides.b
    return [
        *one_run_remarks(a, b),
        *name_remarks(a.manifest, b.manifest),
        *fallback_remarks(a.manifest, b.manifest),
        *dtype_remarks(a.manifest, b.manifest),
        *cache_remarks(a.manifest, b.manifest),
        *_pairing_remarks(c),
    ]


def _pairing_remarks(c: Compared) -> list[str]:
    """How turns found their partners, and that accepted lengths count what one side could not draft."""
    remarks, walk = [], c.walk
    if c.turns.num_renamed:
        turns = counted(c.turns.num_renamed, "turn")
        remarks.append(f"no prompt has the same name in both: {turns} paired by equal prompts")
    if not walk.num_capped:
        return remarks
    return [
        *remarks,
        f"in {counted(walk.num_capped, 'step')} one side drafted no deeper than tokens could still be emitted: they "
        "are compared as far as that, and the side that drafted on may accept more",
    ]


def _drift(judge: FloatJudge) -> list[Drift]:
    """What the judge let pass, by field."""
    drift = sorted(judge.drift.items())
    return [Drift(field=name, count=int(count), largest=largest) for name, (count, largest) in drift]


def _conclude(walk: Walk, incomparable: list[str], violations: list[Blame], loaded: list[str]) -> VerdictKind:
    roots = walk.findings.roots
    if incomparable:
        return "incomparable"
    if violations or loaded or any(root.difference.kind not in TIES for root in roots):
        return "different"
    if walk.uncovered:
        return "uncovered"
    return "ties" if roots else "equal"


def _exit_code(kind: VerdictKind, *, fail_on_ties: bool) -> int:
    codes = {
        "equal": EXIT_EQUAL,
        "ties": EXIT_DIFFERENT if fail_on_ties else EXIT_EQUAL,
        "different": EXIT_DIFFERENT,
        "incomparable": EXIT_INCOMPARABLE,
        "uncovered": EXIT_COVERAGE,
    }
    return codes[kind]
