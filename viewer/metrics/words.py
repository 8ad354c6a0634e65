"""Metrics in words: the numbers of a run, of two side by side, and remarks on them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.naming.text import shorten, visible
from specscope.tracer.tuning.intervals import Cluster, Mean, ratio_of
from specscope.tracer.tuning.requests import Served
from specscope.viewer.drawing.fragments import Fact
from specscope.viewer.drawing.labels.numbers import NOT_RECORDED, decimals, length_facts, tokens_per_step
from specscope.viewer.metrics.numbers import MOST_DEPTHS, RunMetrics, StageTimes

Measure = Callable[[RunMetrics], float | None]


def fact_entries(run: RunMetrics) -> list[Fact]:
    """The run in one line."""
    speed = run.speed.overall
    remark = "tokens per second, prefill included" if speed is not None else ""
    entries = [
        *length_facts(run.num_turns, run.num_steps, run.accepted_length),
        Fact("speed", decimals(speed, 1), remark),
    ]
    mean = run.tuning.accepted_length
    if mean is not None:
        entries[2] = entries[2]._replace(note=f"{mean.low:.2f} to {mean.high:.2f}; without root and bonus token")
    walks = run.tuning.walks
    if walks.num_drafted:
        shares = f"{walks.num_accepted:,} of {walks.num_drafted:,} drafted"
        entries.append(Fact("nodes accepted", f"{walks.num_accepted / walks.num_drafted:.0%}", shares))
    return entries + waiting_facts(run.tuning.served)


def waiting_facts(served: Served | None) -> list[Fact]:
    """How long requests waited for a row, and what the rows put out together; empty where nobody could wait."""
    if served is None:
        return []
    steps, ms = served.waited_steps, served.waited_ms
    in_ms = "" if ms is None else f"; {ms.mean:,.0f} ms, p95 {ms.p95:,.0f}"
    waited = f"steps on average, p95 {steps.p95:,.0f}{in_ms}"
    cancelled = f"; {served.num_cancelled:,} of them cancelled" if served.num_cancelled else ""
    entries = [
        Fact("requests", f"{served.num_requests:,}", f"took a row{cancelled}"),
        Fact("waited for a row", decimals(steps.mean, 2), waited),
    ]
    if served.tokens_per_step is not None:
        entries.append(
            Fact("tokens of all rows", decimals(served.tokens_per_step, 2), "a step that they take together")
        )
    return entries


def speed_up_facts(runs: Sequence[RunMetrics]) -> list[Fact]:
    """How much faster each run is than one that drafts nothing, beside what it could be at most: a step that costs no
    more than a token of the other does. Empty where no run drafts nothing."""
    plain = next((run for run in runs if run.is_plain), None)
    if plain is None:
        return []
    entries = []
    for run in runs:
        ratio = None if run.is_plain else speed_ratio(plain, run)
        bound = tokens_per_step(run.accepted_length)
        if ratio is not None and bound is not None:
            words = f"{ratio.low:.2f} to {ratio.high:.2f}; {bound:.2f} at most, at its tokens per step"
            entries.append(Fact(f"speed-up of {shorten(visible(run.name), 40)}", f"{ratio.value:.2f} ×", words))
    return entries


def repetition_notes(runs: Sequence[RunMetrics]) -> list[str]:
    """Of each run whose turns end in loops, what that does to its numbers; named where there are several runs."""
    notes = []
    for run in runs:
        words = run.tuning.loops
        if words is not None:
            notes.append(words if len(runs) == 1 else f"{shorten(visible(run.name), 60)}: {words}")
    return [f"{words}." for words in notes]


def table_lines(runs: Sequence[RunMetrics]) -> list[list[str]]:
    """One row per measure: its name, its value in each run, and for two runs the second value over the first."""
    lines = []
    for name, num_digits, measure in _measures(runs):
        values = [measure(run) for run in runs]
        ratio = [_ratio(*values)] if len(values) == 2 else []
        lines.append([name, *(decimals(value, num_digits) for value in values), *ratio])
    if len(runs) == 2:
        for line in lines:
            line.append(_interval(INTERVALS[line[0]](*runs)) if line[0] in INTERVALS else "")
    return lines


def length_ratio(baseline: RunMetrics, candidate: RunMetrics) -> Mean | None:
    """The candidate's accepted length over the baseline's, by turns in pairs where both have the same."""
    rows = (
        [Cluster(t.accepted_length.value * t.accepted_length.size, t.accepted_length.size) for t in run.tuning.turns]
        for run in (candidate, baseline)
    )
    return ratio_of(*rows)


def speed_ratio(baseline: RunMetrics, candidate: RunMetrics) -> Mean | None:
    """The candidate's tokens per second over the baseline's, in the same way; None where one has no speed."""
    if baseline.speed.overall is None or candidate.speed.overall is None:
        return None
    candidates, others = (
        [Cluster(turn.num_tokens, turn.seconds) for turn in run.speed.turns] for run in (candidate, baseline)
    )
    return ratio_of(candidates, others)


#: Ratios of the table whose interval can be told.
INTERVALS = {"accepted length, mean": length_ratio, "tokens per second": speed_ratio}


def _interval(ratio: Mean | None) -> str:
    """Between what the ratio lies, and whether that is a change at all."""
    if ratio is None:
        return ""
    words = f"{ratio.low:.3f} to {ratio.high:.3f}"
    return f"{words}: no change shown" if ratio.low <= 1 <= ratio.high else words


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


def turn_remarks(run: RunMetrics) -> list[str]:
    """Remarks on what is drawn turn by turn."""
    return ["There is one turn: its number stands above."] if run.num_turns == 1 else []


def speed_remarks(run: RunMetrics) -> list[str]:
    """Remarks on the speed."""
    if run.num_turns <= 1:
        return turn_remarks(run)
    lines = ["Output tokens over wall time, prefill included."]
    if len(run.speed.turns) < run.num_turns:
        lines.append(f"{len(run.speed.turns):,} of {run.num_turns:,} turns are shown: those that ended and were read.")
    if run.batch_size > 1:
        lines.append("Turns ran side by side and their times overlap, so there is no overall speed.")
    return lines + mean_remarks(run, "turns")


def position_remarks(run: RunMetrics) -> list[str]:
    """Remarks on acceptance by position."""
    if run.is_replay:
        return ["Not shown for a replay, which commits other tokens than it accepts."]
    if run.positions is None:
        return [f"Accepted length: {NOT_RECORDED}."]
    lines = [
        "Accepted length, without root and bonus token; each point is the mean of its range, with its margin at 95 %."
    ]
    if run.num_turns_positioned < run.num_turns:
        lines.append(f"From {run.num_turns_positioned:,} of {run.num_turns:,} turns, spread evenly over the run.")
    return lines + mean_remarks(run, "ranges")


def course_remarks(run: RunMetrics) -> list[str]:
    """Remarks on tokens per step over the run."""
    lines = ["Tokens per step = accepted length + 1. Points: means of ranges of steps."]
    if run.course is not None and run.course.mean_of is not None:
        lines.append(f"Line: mean of the last {run.course.mean_of} steps.")
    return lines


def mean_remarks(run: RunMetrics, what: str) -> list[str]:
    """What the line of a moving mean is, where one is drawn besides; ``what`` it is of."""
    if run.mean_of is None:
        return []
    anew = " It begins anew at the left edge: what lies before is not in it." if run.is_part else ""
    return [f"Line: mean of the last {run.mean_of} {what}.{anew}"]


def depth_remarks(run: RunMetrics) -> list[str]:
    """Remarks on acceptance by depth."""
    if run.depths is None:
        return [f"Accepted length: {NOT_RECORDED}."]
    if not len(run.depths.reached):
        return ["The run has no tree: no node was drafted."]
    deepest = f" Deeper than {MOST_DEPTHS} is not shown." if len(run.depths.reached) >= MOST_DEPTHS else ""
    return [f"Over all {run.num_steps:,} steps; depth 1 is the root's children.{deepest}"]


def tuning_remarks(run: RunMetrics) -> list[str]:
    """Remarks on what is counted at every node where a walk stood."""
    tuning = run.tuning
    if not tuning.walks.num_steps:
        return [f"Acceptance: {NOT_RECORDED}."]
    part = f"From {tuning.num_read:,} of {tuning.num_steps:,} steps." if tuning.num_read < tuning.num_steps else ""
    walks = tuning.walks
    cut = ""
    if walks.not_in_tree and walks.cut is not None:
        cut = f"{walks.cut / walks.not_in_tree:.0%} of those not in the tree were proposed and cut."
    return [line for line in (part, cut) if line]


def what_if_remarks(run: RunMetrics) -> list[str]:
    """Remarks on what other trees would have accepted."""
    tuning = run.tuning
    if tuning.no_what_if is not None:
        return [f"Cannot be told: {tuning.no_what_if}."]
    steps = tuning.what_if[0].accepted_length.size if tuning.what_if else 0
    lines = [f"From the candidates of {steps:,} recorded steps, without a model; bars hold 95 % of resampled means."]
    lines.append("A run with another tree would have stood at other steps: its mean may differ by some percent.")
    return lines


def shape_remarks(run: RunMetrics) -> list[str]:
    """Remarks on depths and top-k: where a number is an estimate."""
    if run.tuning.no_what_if is not None:
        return what_if_remarks(run)
    least = min((outcome.num_exact / outcome.accepted_length.size for outcome in run.tuning.what_if), default=1.0)
    if least == 1:
        return []
    return [f"Depths are exact; a smaller top-k is exact in {least:.0%} of the steps or more, estimated in the others."]


def _ratio(first: float | None, second: float | None) -> str:
    return "–" if first is None or second is None or first == 0 else f"{second / first:.3f}"
