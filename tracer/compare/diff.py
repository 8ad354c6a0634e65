"""The comparison of two traces: alignment proof, roots and what follows from them, the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from specscope.schemas import TurnStart
from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.align import TurnAlignment, TurnPair, align_turns
from specscope.tracer.compare.allowed import Consequences, check_allowed, consequences
from specscope.tracer.compare.coverage import coverage_problems, unpaired_turns
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.lengths import LengthWalk, are_lengths
from specscope.tracer.compare.manifests import compare_manifests
from specscope.tracer.compare.marks import TurnMarks
from specscope.tracer.compare.pair_noise import PairNoise, given_noise, noise_of_pair, noise_of_run
from specscope.tracer.compare.roots import Findings
from specscope.tracer.compare.sides import Sides
from specscope.tracer.compare.turns import Walk, compare_turn
from specscope.tracer.compare.verdict import Compared, verdict_of
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.places import turns_name
from specscope.tracer.oracle.check import check_records

if TYPE_CHECKING:
    from _typeshed import StrPath


@dataclass(frozen=True)
class DiffOptions:
    """What the user may set."""

    tolerance: float | None = None  # None: the noise floor is measured
    allowed: frozenset[str] = frozenset()  # manifest fields that may differ
    fail_on_ties: bool = False
    noise: StrPath | None = None  # a run that differs from the baseline by noise alone


class Comparison(NamedTuple):
    """A verdict, and what became of every pair of steps on the way to it."""

    verdict: Verdict
    turns: list[TurnMarks]


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
        UsageError: where the run to measure noise on cannot tell the noise of this pair, or where noise or a tolerance
            is given for lengths.
    """
    return _compared(Path(baseline), Path(candidate), options or DiffOptions(), watch=watch)


def compare_traces(
    baseline: StrPath,
    candidate: StrPath,
    options: DiffOptions | None = None,
    *,
    watch: Callable[[int], None] | None = None,
) -> Comparison:
    """As ``diff_traces``, with the state of every pair of steps: some 100 bytes of memory each.

    Raises:
        TraceError: where one of them cannot be read.
        UsageError: where the run to measure noise on cannot tell the noise of this pair.
    """
    marks: list[TurnMarks] = []
    verdict = _compared(Path(baseline), Path(candidate), options or DiffOptions(), marks=marks, watch=watch)
    return Comparison(verdict, marks)


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
        incomparable = proof.incomparable + _start_differences(a, b, turns.pairs, options)
        a.keep_first_steps()
        b.keep_first_steps()
        sides = Sides(a, b, check_records(a, watch=watch), check_records(b, watch=watch))
        lengths = are_lengths(a.manifest, b.manifest)
        if lengths and options.noise is not None:
            raise UsageError(_without_floats("--noise"))
        if lengths and options.tolerance is not None:
            raise UsageError(_without_floats("--tolerance"))
        expected = consequences(a.manifest, b.manifest, proof.let)
        noise = PairNoise([], None) if incomparable or lengths else _noise(sides, expected, options)
        walk = Walk(
            judge=FloatJudge.of(noise.floors, a.manifest),
            findings=Findings(steps_stand_alone=_is_replay(sides)),
            drift=noise.drift,
            marks=marks,
            expected=expected,
            uncovered=_uncovered(sides, turns),
        )
        if lengths:
            LengthWalk(sides, walk, judged=not incomparable).compare(turns.pairs)
        elif not incomparable:
            _compare_turns(sides, turns.pairs, walk, watch)
        return verdict_of(
            Compared(
                sides=sides,
                proof=proof,
                incomparable=incomparable,
                floors=noise.floors,
                walk=walk,
                turns=turns,
                fail_on_ties=options.fail_on_ties,
            )
        )


def _without_floats(option: str) -> str:
    return f"{option} says nothing of these two: a side records only lengths, and no logits; leave it out"


def _noise(sides: Sides, expected: Consequences, options: DiffOptions) -> PairNoise:
    if options.tolerance is not None:
        return given_noise(sides, options.tolerance)
    if options.noise is None:
        return noise_of_pair(sides, expected)
    return noise_of_run(sides, expected, Path(options.noise), options.allowed)


def _is_replay(sides: Sides) -> bool:
    """Whether the steps of one of the two each began from equal state."""
    return bool(sides.a.manifest.replay_of or sides.b.manifest.replay_of)


def _uncovered(sides: Sides, turns: TurnAlignment) -> list[str]:
    """What of the pair is missing, before a step is compared. A replay may be of only some turns."""
    uncovered = coverage_problems(sides.a, "baseline") + coverage_problems(sides.b, "candidate")
    uncovered += sides.forgotten()
    if not _is_replay(sides):
        uncovered += unpaired_turns(turns.only_a, "baseline") + unpaired_turns(turns.only_b, "candidate")
    return uncovered


def _compare_turns(sides: Sides, pairs: list[TurnPair], walk: Walk, watch: Callable[[int], None] | None) -> None:
    num_bytes = sides.a.content.stat().st_size + sides.b.content.stat().st_size
    for pair in pairs:
        compare_turn(sides, pair, walk)
        if watch is not None:
            watch(num_bytes // len(pairs))
    if not pairs:
        walk.uncovered.append("no turn is in both traces")
    elif walk.num_steps == walk.num_beyond == 0 and any(pair.a.steps or pair.b.steps for pair in pairs):
        walk.uncovered.append("no pair of steps could be aligned")


def _start_differences(a: TraceReader, b: TraceReader, pairs: list[TurnPair], options: DiffOptions) -> list[str]:
    """What turns were given that was not meant to differ: the prompts of first turns (later turns contain the run's own
    output, which may), and where tokens are drawn, the seeds."""
    problems = []
    draws = a.manifest.sampling.rule != "greedy" and "seed" not in options.allowed
    for pair in pairs:
        start_a, start_b = a.turn_start(pair.a), b.turn_start(pair.b)
        if pair.a.prompt_turn == 0 and _other_prompts(start_a, start_b):
            counts = f"{start_a.prompt_length} and {start_b.prompt_length} token ids"
            problems.append(f"prompt {pair.a.prompt_id}: {counts} that are not the same")
        seeds = (start_a.generator_seed, start_b.generator_seed)
        if draws and None not in seeds and seeds[0] != seeds[1]:
            problems.append(
                f"{turns_name(pair.a.turn, pair.b.turn, pair.a.prompt_id)}: generator seed {seeds[0]} -> {seeds[1]}"
            )
    return problems


def _other_prompts(a: TurnStart, b: TurnStart) -> bool:
    """Whether two prompts are known to differ: by their ids, or where a side records none, by their lengths."""
    if not (a.without_ids or b.without_ids):
        return a.prompt_ids != b.prompt_ids
    return None not in (a.prompt_length, b.prompt_length) and a.prompt_length != b.prompt_length
