"""What the measurements come to, per variant: spreads over turns, ratios within a round, acceptance by depth, stages.

Every ratio is of two variants' times for the same turn in the same round. Turns that one of the two lacks count in no
ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from specscope.engine.lab.bench.turns import TurnKey, TurnMeasure
from specscope.schemas.phases import TIMED_PHASES


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over turns; percentiles are interpolated."""

    mean: float
    p50: float
    p90: float
    p99: float
    lowest: float
    highest: float
    lower_quartile: float
    upper_quartile: float
    num: int


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of ``values``; None where there are none."""
    if not values:
        return None
    p0, p25, p50, p75, p90, p99, p100 = (float(v) for v in np.percentile(values, [0, 25, 50, 75, 90, 99, 100]))
    return Spread(
        mean=float(np.mean(values)),
        p50=p50,
        p90=p90,
        p99=p99,
        lowest=p0,
        highest=p100,
        lower_quartile=p25,
        upper_quartile=p75,
        num=len(values),
    )


@dataclass(frozen=True, kw_only=True)
class DepthAcceptance:
    """How far steps accepted."""

    depth: int  # from 1
    marginal: float  # share of all steps that accepted at least so many nodes
    conditional: float | None  # of those that accepted one fewer; None where there are none


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a step."""

    name: str  # a phase, or other: stop rules, recording and what lies between
    ms: float  # per step
    share: float  # of a step


@dataclass(frozen=True, kw_only=True)
class CategorySummary:
    """A variant over the turns of one category."""

    category: str
    num_turns: int
    tokens_per_s: float
    tokens_per_step: float
    speed_up: Spread | None  # None for the first variant


@dataclass(frozen=True, kw_only=True)
class VariantSummary:
    """One variant over all its turns."""

    name: str
    num_turns: int
    num_tokens: int
    num_steps: int  # of rows: what an accepted length is of
    total_tokens_per_s: float  # all tokens over all time
    tokens_per_s: Spread
    speed_up: Spread | None  # over the first variant; None for that one itself
    accepted_length: float  # per step, without root and bonus
    depths: list[DepthAcceptance]
    stages: list[Stage]
    categories: list[CategorySummary]
    num_other_outputs: int  # turns whose tokens are not the first variant's
    bytes_per_step: float  # of a trace

    @property
    def tokens_per_step(self) -> float:
        """The accepted length and the bonus."""
        return self.accepted_length + 1

    def stage_ms(self, *names: str) -> float:
        """Of the stages named, per step."""
        return sum(stage.ms for stage in self.stages if stage.name in names)


def summarise(measures: Sequence[TurnMeasure], variants: Sequence[str]) -> list[VariantSummary]:
    """Each of the ``variants`` that have turns, in their order; the first named is what the others are measured
    against."""
    by_name = {name: [measure for measure in measures if measure.variant == name] for name in variants}
    base = {measure.key: measure for measure in by_name[variants[0]]}
    return [_summary(turns, base, is_first=name == variants[0]) for name, turns in by_name.items() if turns]


def _summary(turns: list[TurnMeasure], base: dict[TurnKey, TurnMeasure], *, is_first: bool) -> VariantSummary:
    lengths = [length for turn in turns for length in turn.accepted_lengths]
    tokens = spread([turn.tokens_per_s for turn in turns])
    assert tokens is not None
    categories = list(dict.fromkeys(turn.category for turn in turns if turn.category is not None))
    return VariantSummary(
        name=turns[0].variant,
        num_turns=sum(turn.num_turns for turn in turns),
        num_tokens=sum(turn.num_tokens for turn in turns),
        num_steps=len(lengths),
        total_tokens_per_s=_tokens_per_s(turns),
        tokens_per_s=tokens,
        speed_up=None if is_first else spread(speed_ups(turns, base)),
        accepted_length=_mean_accepted(turns),
        depths=acceptance_by_depth(lengths),
        stages=_stages(turns),
        categories=[_category(name, [t for t in turns if t.category == name], base, is_first) for name in categories],
        num_other_outputs=sum(t.key in base and t.output_digest != base[t.key].output_digest for t in turns),
        bytes_per_step=sum(turn.trace_bytes for turn in turns) / max(1, len(lengths)),
    )


def _category(name: str, turns: list[TurnMeasure], base: dict[TurnKey, TurnMeasure], is_first: bool) -> CategorySummary:
    return CategorySummary(
        category=name,
        num_turns=sum(turn.num_turns for turn in turns),
        tokens_per_s=_tokens_per_s(turns),
        tokens_per_step=_mean_accepted(turns) + 1,
        speed_up=None if is_first else spread(speed_ups(turns, base)),
    )


def speed_ups(turns: Sequence[TurnMeasure], base: dict[TurnKey, TurnMeasure]) -> list[float]:
    """How many times as fast as ``base`` each of the turns was that both have, in tokens per second."""
    return [turn.tokens_per_s / base[turn.key].tokens_per_s for turn in turns if turn.key in base]


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What tracing costs a variant."""

    name: str
    slowdown: Spread  # time over the same variant's, untraced
    bytes_per_step: float


def overheads(measures: Sequence[TurnMeasure], variants: Sequence[str]) -> list[Overhead]:
    """Of every traced variant that was measured beside the same one untraced: its name up to the comma."""
    costs = []
    for name in variants:
        turns = [measure for measure in measures if measure.variant == name]
        untraced = name.partition(",")[0]
        plain = {m.key: m for m in measures if m.variant == untraced and untraced != name}
        ratios = spread([turn.duration_ns / plain[turn.key].duration_ns for turn in turns if turn.key in plain])
        size = sum(turn.trace_bytes for turn in turns)
        if ratios is not None and size:
            num_steps = sum(len(turn.accepted_lengths) for turn in turns)
            costs.append(Overhead(name=name, slowdown=ratios, bytes_per_step=size / max(1, num_steps)))
    return costs


def acceptance_by_depth(lengths: Sequence[int]) -> list[DepthAcceptance]:
    """How many of the steps with these accepted lengths accepted at least 1, 2, ... nodes."""
    reached = [sum(length >= depth for length in lengths) for depth in range(max(lengths, default=0) + 1)]
    return [
        DepthAcceptance(depth=depth, marginal=num / len(lengths), conditional=num / before if before else None)
        for depth, (before, num) in enumerate(pairwise(reached), start=1)
    ]


def _tokens_per_s(turns: Sequence[TurnMeasure]) -> float:
    return sum(t.num_tokens for t in turns) / max(sum(t.duration_ns for t in turns) / 1e9, 1e-9)


def _mean_accepted(turns: Sequence[TurnMeasure]) -> float:
    lengths = [length for turn in turns for length in turn.accepted_lengths]
    return sum(lengths) / max(1, len(lengths))


def _stages(turns: Sequence[TurnMeasure]) -> list[Stage]:
    """The timed phases, and what they leave of the turns after their prefills."""
    num_steps = sum(turn.num_steps for turn in turns)
    total_ns = sum(turn.duration_ns - turn.prefill_ns for turn in turns)
    if not num_steps or total_ns <= 0 or not any(turn.phase_ns for turn in turns):
        return []
    recorded = [phase for phase in TIMED_PHASES if any(phase in turn.phase_ns for turn in turns)]
    times_ns = [(str(phase), sum(turn.phase_ns.get(phase, 0) for turn in turns)) for phase in recorded]
    times_ns.append(("other", max(0, total_ns - sum(ns for _, ns in times_ns))))
    return [Stage(name=name, ms=ns / num_steps / 1e6, share=ns / total_ns) for name, ns in times_ns]
