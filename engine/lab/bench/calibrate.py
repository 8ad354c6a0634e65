"""Measures a profile: steps of each shape of tree, in turn, at every combination of rows and contexts.

What is timed are steps as any run takes them, so that nothing which a step costs is left out. The shapes take turns on
one text: whatever slows the machine slows all of them, and all of them draft for the same kind of places.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

from specscope.engine.lab.bench.clocks import clock_of
from specscope.engine.lab.bench.texts import EndlessText
from specscope.engine.lab.bench.turns import Clock
from specscope.engine.load.decoding import decoding_of
from specscope.engine.load.models import Models
from specscope.engine.loop.phases import Decoding, StepResult
from specscope.engine.loop.session import Session
from specscope.engine.loop.shapes import follow_policy
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.record.manifest import RunFacts, build_manifest
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import turn_seed
from specscope.engine.settings import Settings
from specscope.engine.tree.policy import NO_TREE, PRESETS, TreePolicy, chain_policy, static_policy
from specscope.schemas.profile import (
    AcceptedAt,
    MeasuredShape,
    MeasuredStep,
    Profile,
    ProfiledTexts,
    Spread,
)
from specscope.tracer.errors import UsageError
from specscope.tracer.shapes import Load

CHAINS = (1, 3, 5)  # depths
STATIC = ("pair-6", "bush-16")


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """What is measured."""

    settings: Settings  # those of the runs that the profile is for
    prompts: Sequence[Prompt]
    texts: str  # name of the suite or the files
    rows: Sequence[int]  # ascending
    contexts: Sequence[int]  # tokens of a row when it begins; ascending
    rounds: int
    clock: Clock = "wall"

    @property
    def num_steps(self) -> int:
        """Steps that are timed."""
        return len(self.rows) * len(self.contexts) * self.rounds * len(named_shapes(self.settings))


def named_shapes(settings: Settings) -> dict[str, TreePolicy]:
    """The shapes that are measured, from the smallest to the largest: nothing, chains, bushes, and where the drafts are
    not drawn, the dynamic tree of the settings."""
    shapes = {"none": NO_TREE}
    shapes |= {f"chain-{depth}": chain_policy(depth) for depth in CHAINS}
    shapes |= {name: static_policy(PRESETS[name], name) for name in STATIC}
    policy = settings.choice.policy
    if policy.kind == "dynamic" and settings.choice.rule.draft != "sampled":
        shapes[f"dynamic-{policy.budget}"] = replace(policy, sizing=None)
    return dict(sorted(shapes.items(), key=lambda item: (item[1].budget, item[1].depth)))


def check_plan(plan: CalibrationPlan) -> None:
    """Refuses what cannot be measured.

    Raises:
        UsageError: where nothing is drafted, or values are no ascending numbers.
    """
    if plan.settings.choice.drafter_source == "none":
        raise UsageError("got a run that drafts nothing to calibrate, wanted a drafter: drop --mode baseline")
    for name, values in (("--rows", plan.rows), ("--contexts", plan.contexts)):
        if not values or list(values) != sorted(set(values)) or values[0] < 1:
            raise UsageError(f"got {name} {', '.join(map(str, values))}, wanted ascending numbers from 1")


@dataclass(kw_only=True)
class _Samples:
    """Times of one shape at one load, in ms, step by step."""

    step: list[float] = field(default_factory=list)
    draft: list[float] = field(default_factory=list)
    verify: list[float] = field(default_factory=list)


class _Place(NamedTuple):
    """Where a walk went on, or did not."""

    depth: int
    rank: int


@dataclass(kw_only=True)
class Acceptance:
    """What walks came to, counted over steps of single rows."""

    lengths: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # by shape
    tried: Counter[_Place] = field(default_factory=Counter)
    accepted: Counter[_Place] = field(default_factory=Counter)

    def add(self, shape: str, policy: TreePolicy, result: StepResult) -> None:
        """Counts one row's step. Only fixed shapes tell of ranks: a dynamic tree has the children that looked best."""
        path = result.acceptance.path
        self.lengths[shape].append(len(path))
        if not policy.is_fixed:
            return
        tree = result.shared.draft.tree
        parents = tree.parents[result.row, : tree.num_slots[result.row]].tolist()
        for depth, (place, child) in enumerate(zip([0, *path], [*path, None], strict=True), 1):
            children = [slot for slot in range(1, len(parents)) if parents[slot] == place]
            for rank, slot in enumerate(children):
                self.tried[_Place(depth, rank)] += 1
                self.accepted[_Place(depth, rank)] += slot == child

    def by_place(self) -> list[AcceptedAt]:
        """By depth, then by rank."""
        return [
            AcceptedAt(depth=at.depth, rank=at.rank, tried=self.tried[at], accepted=self.accepted[at])
            for at in sorted(self.tried)
        ]


class _Timed(NamedTuple):
    """One step of all rows."""

    shape: str
    context: int  # committed tokens of a row before it
    results: list[StepResult]
    step_ms: float

    def phase_ms(self, phase: str) -> float:
        """Of the step's time, as much as the phase had of the phases together: phases have wall time only."""
        phases = self.results[0].durations_ns
        return self.step_ms * phases[phase] / sum(phases.values())


def calibrate(plan: CalibrationPlan, models: Models, advance: Callable[[str], None] = lambda _: None) -> Profile:
    """Measures ``plan`` with ``models``, whose drafter's policy is put back afterwards; calls ``advance`` after each
    step.

    Raises:
        UsageError: where a context does not fit the teacher.
    """
    check_plan(plan)
    drafter, before = models.drafter, models.drafter.policy
    _check_room(plan, models)
    decoding = replace(decoding_of(plan.settings, models.teacher), shapes=None)
    samples: dict[tuple[str, int, int], _Samples] = defaultdict(_Samples)
    lengths: dict[int, list[int]] = defaultdict(list)
    acceptance = Acceptance()
    text = EndlessText(plan.prompts, models.teacher)
    shapes = named_shapes(plan.settings)
    try:
        for context, num_rows in product(plan.contexts, plan.rows):
            for timed in _steps(plan, models, decoding, [text.take(context) for _ in range(num_rows)]):
                kept = samples[timed.shape, num_rows, context]
                kept.step.append(timed.step_ms)
                kept.draft.append(timed.phase_ms("draft"))
                kept.verify.append(timed.phase_ms("verify"))
                lengths[context].append(timed.context)
                for result in timed.results:
                    acceptance.add(timed.shape, shapes[timed.shape], result)
                advance(f"{num_rows} x {context}")
    finally:
        follow_policy(drafter, before)
    means = {context: round(statistics.fmean(lengths[context])) for context in plan.contexts}
    return _profile(plan, models, text, steps=_measured(samples, means), acceptance=acceptance)


def _check_room(plan: CalibrationPlan, models: Models) -> None:
    shapes = named_shapes(plan.settings).values()
    growth = 1 + sum(policy.depth + 1 for policy in shapes) + max(policy.depth for policy in shapes)
    most = models.teacher.max_positions
    if most is not None and plan.contexts[-1] + growth > most:
        raise UsageError(
            f"got context {plan.contexts[-1]}, after which up to {growth} tokens are decoded, and the teacher has "
            f"{most} positions: give smaller --contexts"
        )


def _steps(plan: CalibrationPlan, models: Models, decoding: Decoding, prompts: list[list[int]]) -> Iterator[_Timed]:
    """Timed steps of rows that begin with ``prompts``, after one round that is not.

    Every round begins behind the prompts again, which are in the caches by then: what a model writes by itself for long
    repeats itself, and more of its drafts are accepted than a run's are.
    """
    session = Session(models.teacher, models.drafter, decoding, len(prompts))
    shapes = list(named_shapes(plan.settings).items())
    rules = StopRules(max_new_tokens=1 << 30, eos_token_ids=[], stop_strings=[])
    now = clock_of(plan.clock, models.teacher.device)
    for number in range(-1, plan.rounds):
        for row, ids in enumerate(prompts):
            seed = turn_seed(plan.settings.seed or 0, f"row {row}, round {number}", 0)
            session.begin(row, TurnRequest(ids, rules, generator_seed=seed))
        session.step()  # in which the drafter takes the prompts in
        first = number % len(shapes)
        for name, policy in [*shapes[first:], *shapes[:first]]:
            follow_policy(models.drafter, policy)
            context = Load.of(session.cache.committed_lengths).context
            begun = now()
            results = session.step()
            if number >= 0:
                yield _Timed(name, context, results, (now() - begun) / 1e6)
        session.abandon("interrupted")


def _measured(samples: dict[tuple[str, int, int], _Samples], means: dict[int, int]) -> list[MeasuredStep]:
    if len(set(means.values())) < len(means):
        raise UsageError("got --contexts that lie so near to each other that their steps overlap: give fewer")
    return [
        MeasuredStep(
            shape=shape,
            rows=rows,
            context=means[context],
            num_samples=len(kept.step),
            step=_spread(kept.step),
            draft=_spread(kept.draft),
            verify=_spread(kept.verify),
        )
        for (shape, rows, context), kept in samples.items()
    ]


def _spread(times: list[float]) -> Spread:
    """To four digits, which is more than such a measurement is good for."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return Spread(median_ms=_rounded(median), low_ms=_rounded(low), high_ms=_rounded(high))


def _rounded(value: float) -> float:
    return float(f"{max(value, 1e-4):.4g}")


def _measured_shapes(shapes: dict[str, TreePolicy], acceptance: Acceptance) -> list[MeasuredShape]:
    return [
        MeasuredShape(
            name=name,
            kind=policy.kind if policy.kind != "auto" else "none",
            depth=policy.depth,
            top_k=policy.top_k,
            budget=policy.budget,
            choices=[list(node) for node in policy.choices] or None,
            tokens_per_step=_rounded(1 + statistics.fmean(acceptance.lengths[name])),
            num_samples=len(acceptance.lengths[name]),
            deviation=round(statistics.pstdev(acceptance.lengths[name]), 4),
        )
        for name, policy in shapes.items()
    ]


def _profile(
    plan: CalibrationPlan, models: Models, text: EndlessText, *, steps: list[MeasuredStep], acceptance: Acceptance
) -> Profile:
    facts = RunFacts(plan.settings, "decisions", StopRules(1, [], []), None)
    manifest = build_manifest("calibration", facts, models.teacher, models.drafter)
    return Profile(
        created=manifest.created,
        engine=manifest.engine,
        versions=manifest.versions,
        device=manifest.device,
        mode=manifest.mode,
        attention=manifest.attention,
        dtype=manifest.dtype,
        graph=manifest.graph or "none",
        products=manifest.products,
        cache_strategy=manifest.cache_strategy or "in-place",
        teacher=manifest.teacher.model_copy(update={"parameters": None}),
        drafter=manifest.drafter.model_copy(update={"parameters": None}),
        sampling=manifest.sampling,
        texts=ProfiledTexts(name=plan.texts, digest=text.digest),
        rounds=plan.rounds,
        clock=plan.clock,
        shapes=_measured_shapes(named_shapes(plan.settings), acceptance),
        steps=steps,
        acceptance=acceptance.by_place(),
    )
