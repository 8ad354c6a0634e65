"""Metrics in words: the numbers of a run, of two side by side, and remarks on them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specscope.schemas.phases import TIMED_PHASES
from specscope.viewer.drawing.fragments import Fact
from specscope.viewer.drawing.labels.numbers import NOT_RECORDED, decimals, length_facts, tokens_per_step
from specscope.viewer.metrics.numbers import MOST_DEPTHS, RunMetrics, StageTimes

Measure = Callable[[RunMetrics], float | None]


def fact_entries(run: RunMetrics) -> list[Fact]:
    """The run in one line."""
    speed = run.speed.overall
    remark = "tokens per second, prefill included" if speed is not None else ""
    return [
        *length_facts(run.num_turns, run.num_steps, run.accepted_length),
        Fact("speed", decimals(speed, 1), remark),
    ]


def table_lines(runs: Sequence[RunMetrics]) -> list[list[str]]:
    """One row per measure: its name, its value in each run, and for two runs the second value over the first."""
    lines = []
    for name, num_digits, measure in _measures(runs):
        values = [measure(run) for run in runs]
        ratio = [_ratio(*values)] if len(values) == 2 else []
        lines.append([name, *(decimals(value, num_digits) for value in values), *ratio])
    return lines


def _measures(runs: Sequence[RunMetrics]) -> list[tuple[str, int, Measure]]:
    def phase(name: str) -> Measure:
        return lambda run: _median_ms(run.times, name)

    recorded = {phase.name for run in runs if run.times is not None for phase in run.times.phases}
    names = [name for name in TIMED_PHASES if name in recorded] if recorded else TIMED_PHASES
    return [
        ("steps", 0, lambda run: float(run.num_steps)),
        ("accepted length, mean", 3, lambda run: run.accepted_length),
        ("tokens per step, mean", 3, lambda run: tokens_per_step(run.accepted_length)),
        ("tokens per second", 1, lambda run: run.speed.overall),
        ("step, median ms", 2, lambda run: run.times.step_ns / 1e6 if run.times else None),
        *((f"{name}, median ms", 3, phase(name)) for name in names),
    ]


def _median_ms(times: StageTimes | None, name: str) -> float | None:
    """None where no step records the phase."""
    phases = times.phases if times is not None else []
    return next((phase.median_ns / 1e6 for phase in phases if phase.name == name), None)


def phase_lines(times: StageTimes) -> list[list[str]]:
    """One row per phase: name, median, 90th percentile, share."""
    return [
        [phase.name, f"{phase.median_ns / 1e6:.3f}", f"{phase.p90_ns / 1e6:.3f}", f"{phase.share:.1%}"]
        for phase in times.phases
    ]


def times_remarks(run: RunMetrics) -> list[str]:
    """Remarks on the stage times."""
    times = run.times
    if times is None:
        return ["This run records no timings."]
    lines = ["From all steps."]
    if times.num_read < times.num_steps:
        lines = [f"From {times.num_read:,} of {times.num_steps:,} steps, spread evenly over the run."]
    if times.num_timed < times.num_read:
        lines.append(f"{times.num_read - times.num_timed:,} of them record no timings.")
    if times.synchronised == "all":
        lines.append("The device was synchronised after each phase: these are the times of the work.")
    else:
        often = "not" if times.synchronised == "none" else "only sometimes"
        lines.append(f"The device was {often} synchronised: these are the times of the calls, not of the work.")
    if run.batch_size > 1:
        lines.append("Rows were decoded side by side: these are the times of all rows together.")
    return lines


def speed_remarks(run: RunMetrics) -> list[str]:
    """Remarks on the speed."""
    lines = ["Output tokens over wall time, prefill included."]
    if len(run.speed.turns) < run.num_turns:
        lines.append(f"{len(run.speed.turns):,} of {run.num_turns:,} turns are shown: those that ended and were read.")
    if run.batch_size > 1:
        lines.append("Turns ran side by side and their times overlap, so there is no overall speed.")
    return lines


def position_remarks(run: RunMetrics) -> list[str]:
    """Remarks on acceptance by position."""
    if run.is_replay:
        return ["Not shown for a replay, which commits other tokens than it accepts."]
    if run.positions is None:
        return [f"Accepted length: {NOT_RECORDED}."]
    lines = ["Accepted length, without root and bonus token; each point is the mean of its range."]
    if run.num_turns_positioned < run.num_turns:
        lines.append(f"From {run.num_turns_positioned:,} of {run.num_turns:,} turns, spread evenly over the run.")
    return lines


def depth_remarks(run: RunMetrics) -> list[str]:
    """Remarks on acceptance by depth."""
    if run.depths is None:
        return [f"Accepted length: {NOT_RECORDED}."]
    if not len(run.depths.reached):
        return ["The run has no tree: no node was drafted."]
    deepest = f" Deeper than {MOST_DEPTHS} is not shown." if len(run.depths.reached) >= MOST_DEPTHS else ""
    return [f"Over all {run.num_steps:,} steps; depth 1 is the root's children.{deepest}"]


def _ratio(first: float | None, second: float | None) -> str:
    return "–" if first is None or second is None or first == 0 else f"{second / first:.3f}"
