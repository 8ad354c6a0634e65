"""What was measured, beside the closed form, the simulation, more stages, EAGLE-3, and draft-then-verify."""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from specscope.engine.lab.bench.pipeline.costs import MeasuredCosts, costs_of
from specscope.engine.lab.bench.pipeline.measure import Measures
from specscope.engine.lab.bench.pipeline.plan import MODES, PipelinePlan
from specscope.engine.lab.bench.pipeline.plot import Measured, speedup_figure, write_plot
from specscope.engine.ppsd.simulate import Simulation
from specscope.engine.ppsd.theory import Costs, draft_then_verify_speedup, pipeline_time

MORE_STAGES = (2, 4, 8, 16)
Row = dict[str, float | None]


def report(plan: PipelinePlan, measures: Measures) -> None:
    """Prints it, and draws it where that was asked for; the last line is JSON."""
    times, accepted = measures.times, measures.accepted
    costs = costs_of(measures.drafting, measures.sequential, plan.num_stages)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        print(f"load {load:.1f} on {cores} cores: stages wait for a core, so that these times say little")
    _report_costs(costs)
    print(f"{'':12} {'a':>6} {'ms/token':>9} {'speed-up':>9} {'closed':>7} {'wall/closed':>12} {'simulated':>10}")
    rows: dict[str, Row] = {}
    for mode in (*MODES, "one process", "EAGLE-3"):
        speedup = statistics.median(b / t for b, t in zip(times["sequential"], times[mode], strict=True))
        milliseconds = statistics.median(times[mode]) / 1e6
        row: Row = {"ms": milliseconds, "speedup": speedup}
        line = f"{mode:12} {'':6} {milliseconds:9.2f} {speedup:9.3f}"
        if mode in accepted and mode != "sequential":
            share = statistics.mean(accepted[mode])
            closed, simulated = closed_speedup(costs, share), simulated_speedup(costs, share)
            row |= {"a": share, "closed": closed, "simulated": simulated}
            line = f"{mode:12} {share:6.3f} {milliseconds:9.2f} {speedup:9.3f} {closed:7.3f}"
            line += f" {speedup / closed:12.3f} {simulated:10.3f}"
        rows[mode] = row
        print(line)
    rows |= _report_more_stages(costs, statistics.median(times["EAGLE-3"]))
    _report_draft_then_verify(costs.drafting, statistics.mean(accepted["head"]))
    if plan.plot is not None:
        _plot(plan.plot, costs, rows)
    stated = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(plan).items()}
    print(json.dumps({"options": stated, "rows": rows, "measured_s": round(time.process_time(), 1)}))


def _report_costs(costs: MeasuredCosts) -> None:
    side_by_side, alone = ([round(c / 1e6, 3) for c in each.stages] for each in costs)
    print(f"costs per token in ms: stages {side_by_side} side by side, {alone} one after the other,")
    print(
        f"head {costs.drafting.draft / 1e6:.3f}, hop {costs.drafting.hop / 1e6:.3f}, "
        f"word {costs.drafting.word / 1e6:.3f}; one core per rank, event log on"
    )


def _plot(path: Path, costs: MeasuredCosts, rows: dict[str, Row]) -> None:
    """What was measured on these stages, beside the closed form and the simulation for them and for more."""
    measured = [Measured(mode, row["a"] or 0.0, row["speedup"] or 0.0) for mode, row in rows.items() if "a" in row]
    count = len(costs.drafting.stages)
    curves = {f"closed form, {count} stages": partial(closed_speedup, costs)}
    curves[f"simulated, {count} stages"] = partial(simulated_speedup, costs)
    for more in MORE_STAGES[1:]:
        curves[f"simulated, {more} equal stages"] = partial(simulated_speedup, spread(costs, more))
    write_plot(path, speedup_figure(measured, curves))
    print(f"wrote {path}")


def spread(costs: MeasuredCosts, num_stages: int) -> MeasuredCosts:
    """The same work, dealt evenly to so many stages."""
    return MeasuredCosts(*(replace(each, stages=[sum(each.stages) / num_stages] * num_stages) for each in costs))


def _report_more_stages(costs: MeasuredCosts, eagle_ns: float) -> dict[str, Row]:
    """Simulated with the same work dealt evenly, beside EAGLE-3's ``eagle_ns`` per token in one process."""
    rows: dict[str, Row] = {}
    for num_stages in MORE_STAGES:
        dealt = spread(costs, num_stages)
        gains = {f"{a:g}": simulated_speedup(dealt, a) for a in (0.0, 0.5, 0.8, 1.0)}
        shown = ", ".join(f"a {a}: {gain:.2f} ({gain / num_stages:.2f} per device)" for a, gain in gains.items())
        print(f"simulated, {num_stages:2} equal stages over sequential on the same: {shown}")
        crossing = _crossing(dealt, eagle_ns)
        rows[f"{num_stages} stages"] = {"crossing": crossing}
        words = f"drafts that hold from a = {crossing:.2f} on" if crossing is not None else "no share of drafts"
        print(f"{'':11}as fast as EAGLE-3 in one process: {words}")
    return rows


def _report_draft_then_verify(costs: Costs, acceptance: float) -> None:
    """One after the other on one device, with the same head: the closed form, and where it falls below 1."""
    share = (costs.stages[0] + costs.draft) / sum(costs.stages)
    gains = ", ".join(
        f"{drafts} drafts {draft_then_verify_speedup(share, acceptance, drafts):.2f}" for drafts in (1, 2, 4, 8)
    )
    shares = [step / 100 for step in range(101)]
    pays = next((a for a in shares if max(draft_then_verify_speedup(share, a, n) for n in (1, 2, 4, 8)) >= 1), None)
    print(f"draft-then-verify on one device, closed form with a {acceptance:.3f}: {gains}; below 1 where a < {pays}")


def _crossing(costs: MeasuredCosts, eagle_ns: float) -> float | None:
    """The least share of drafts that must hold for the stages to be as fast as EAGLE-3; None where no share does."""
    shares = [step / 20 for step in range(21)]
    return next((a for a in shares if simulated_time(costs.drafting, a) <= eagle_ns), None)


def closed_speedup(costs: MeasuredCosts, acceptance: float) -> float:
    """Over sequential decoding on the same stages, by the closed form."""
    return costs.sequential.sequential / pipeline_time(costs.drafting, acceptance)


def simulated_speedup(costs: MeasuredCosts, acceptance: float) -> float:
    """Over sequential decoding on the same stages."""
    return costs.sequential.sequential / simulated_time(costs.drafting, acceptance)


def simulated_time(costs: Costs, acceptance: float, num_tokens: int = 500) -> float:
    """Per token."""
    held = np.random.default_rng(5).random(num_tokens + 1) < acceptance
    return Simulation(costs, lambda position: bool(held[position % len(held)])).run(num_tokens) / num_tokens
