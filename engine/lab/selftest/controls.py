"""Honest pairs that differ in what may differ. Whatever a verdict reports on one of them is a false positive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from specscope.engine.host import num_threads
from specscope.engine.lab.selftest.permute import permute_slots
from specscope.engine.lab.selftest.runs import Runs
from specscope.engine.lab.selftest.scenarios import Scenario, find_scenario, scenarios
from specscope.engine.tree.policy import TreePolicy, chain_policy
from specscope.schemas.manifest import Mode, TraceLevel
from specscope.schemas.verdict import TIES, Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import EXIT_EQUAL, SpecScopeError
from specscope.tracer.files.reader import TraceReader

HALF_DTYPES = ("bfloat16", "float16")
NUM_HALF = 10  # scenarios that are compared in each of them
MODES: tuple[Mode, ...] = ("fused", "eager")
LEVELS: tuple[TraceLevel, ...] = ("decisions", "scores", "tensors")


class Outcome(NamedTuple):
    """What a control came to. ``silent`` is None where it could not be run here."""

    silent: bool | None
    says: str  # the verdict, or why it was not run


@dataclass(frozen=True)
class Control:
    """An honest pair."""

    name: str
    says: str
    run: Callable[[Runs], Outcome]

    def outcome(self, runs: Runs) -> Outcome:
        """Runs it. A run that fails is no silence."""
        try:
            return self.run(runs)
        except SpecScopeError as error:
            return Outcome(False, f"failed: {error}".splitlines()[0])


def all_controls() -> list[Control]:
    """Every control but the one that comes after the faults."""
    return [
        *[honest_pair(scenario) for scenario in scenarios().values()],
        *[Control(f"same run twice, {mode}", "the same run, decoded twice", _twice(mode)) for mode in MODES],
        *[Control(f"slots permuted, {mode}", "every step's slots renumbered", _permuted(mode)) for mode in MODES],
        *[_tracing(mode, level) for mode in MODES for level in LEVELS],
        _grouping("budget 4", TreePolicy(kind="dynamic", depth=5, top_k=4, budget=4)),
        _grouping("chain of 4", chain_policy(4)),
        Control("redacted", "eager against fused, both redacted with one key", _redacted),
        Control("no drafter", "only the teacher against speculation", _without_drafter),
        Control("two threads", "sums in another order: one thread against two", _threads),
        Control("batch of 1", "sums in another order: one row against two", _batch_of_one),
        Control("dense and paged", "one cache against the other", _paged_or_not),
        *[_half_pair(scenario, dtype) for dtype in HALF_DTYPES for scenario in list(scenarios().values())[:NUM_HALF]],
    ]


def control_after_faults() -> Control:
    """The one that wants to be run last: the first run once more, so that no fault has outlived its own."""
    return Control("after the faults", "the first run once more, when all faults have run", _twice("fused"))


def honest_pair(scenario: Scenario) -> Control:
    """The scenario's two modes without a fault."""

    def run(runs: Runs) -> Outcome:
        objection = scenario.objection(runs.device)
        if objection is not None:
            return Outcome(None, objection)
        return _compare(runs.baseline(scenario), runs.honest(scenario, scenario.candidate))

    says = f"{scenario.baseline} against {scenario.candidate}: {scenario.says}"
    return Control(f"honest {scenario.name}", says, run)


def _half_pair(scenario: Scenario, dtype: str) -> Control:
    """The scenario's two modes in a half format, where ties and noise are many times as frequent."""
    plain = honest_pair(scenario)
    return Control(f"{plain.name}, {dtype}", f"{plain.says}, in {dtype}", lambda runs: plain.run(runs.in_dtype(dtype)))


def _compare(a: Path, b: Path, options: DiffOptions | None = None) -> Outcome:
    return judge_control(diff_traces(a, b, options))


def judge_control(verdict: Verdict) -> Outcome:
    """Silent where the verdict is 0 and reports nothing: no root but ties, no violation, nothing not judged."""
    real = [root for root in verdict.roots if root.difference.kind not in TIES]
    silent = verdict.exit_code == EXIT_EQUAL and not real and not verdict.violations and not verdict.uncovered
    says: list[str] = [verdict.verdict]
    if real:
        says.append(f"{real[0].difference.phase}: {real[0].difference.field}")
    elif verdict.roots:
        says.append(f"{len(verdict.roots)} of them")
    says += [f"{blame.side}: {blame.invariant}" for blame in verdict.violations[:1]]
    says += [*verdict.incomparable[:1], *verdict.uncovered[:1]]
    return Outcome(silent, "; ".join(says))


def _twice(mode: Mode) -> Callable[[Runs], Outcome]:
    def run(runs: Runs) -> Outcome:
        scenario = find_scenario("greedy")
        first, again = runs.honest(scenario, mode), runs.unused(f"again-{mode}")
        runs.decode(scenario, mode, again)
        return _compare(first, again)

    return run


def _permuted(mode: Mode) -> Callable[[Runs], Outcome]:
    def run(runs: Runs) -> Outcome:
        scenario = find_scenario("greedy")
        target = runs.unused(f"permuted-{mode}")
        permute_slots(runs.honest(scenario, mode), target, seed=1)
        return _compare(runs.baseline(scenario), target)

    return run


def _tracing(mode: Mode, level: TraceLevel) -> Control:
    def run(runs: Runs) -> Outcome:
        scenario = replace(find_scenario("greedy"), name="traced")
        traced = runs.decode(scenario, mode, runs.unused(f"traced-{mode}-{level}"), level)
        plain = runs.decode(scenario, mode, None)
        for with_trace, other in zip(traced, plain, strict=True):
            if with_trace.result.output_ids != other.result.output_ids:
                return Outcome(False, f"{with_trace.prompt_id}: other tokens than without a trace")
            if with_trace.result.accepted_lengths != other.result.accepted_lengths:
                return Outcome(False, f"{with_trace.prompt_id}: other accepted lengths than without a trace")
        return Outcome(True, "equal tokens and accepted lengths")

    return Control(f"trace off, {mode}, {level}", f"a run traced at level {level} against one that is not", run)


def _grouping(what: str, policy: TreePolicy) -> Control:
    def run(runs: Runs) -> Outcome:
        scenario = find_scenario("greedy")
        other = replace(
            scenario, name=f"greedy-{what.replace(' ', '-')}", choice=replace(scenario.choice, policy=policy)
        )
        a, b = runs.honest(scenario, "fused"), runs.honest(other, "fused")
        if _outputs(a) != _outputs(b):
            return Outcome(False, "other tokens")
        return _compare(a, b, DiffOptions(allowed=frozenset(["tree_policy"])))

    return Control(f"other steps, {what}", "equal tokens in other steps", run)


def _outputs(trace: Path) -> dict[str, list[int]]:
    with TraceReader(trace) as reader:
        ends = {f"{turn.prompt_id} {turn.prompt_turn}": reader.turn_end(turn) for turn in reader.turns}
    return {name: end.output_ids for name, end in ends.items() if end is not None}


def _redacted(runs: Runs) -> Outcome:
    scenario, traces = find_scenario("greedy"), [runs.unused(f"redacted-{mode}") for mode in MODES]
    for mode, trace in zip(MODES, traces, strict=True):
        runs.decode(scenario, mode, trace, redact="a key for the selftest")
    return _compare(traces[0], traces[1])


def _without_drafter(runs: Runs) -> Outcome:
    scenario = find_scenario("greedy")
    a, b = runs.honest(scenario, "baseline"), runs.honest(scenario, "fused")
    return _compare(a, b) if _outputs(a) == _outputs(b) else Outcome(False, "other tokens")


def _threads(runs: Runs) -> Outcome:
    if runs.device.type != "cpu":
        return Outcome(None, "an accelerator sums in its own order")
    scenario = find_scenario("greedy")
    # Short: where something else runs on the machine, two threads wait for each other more than they compute.
    scenario = replace(scenario, prompts=scenario.prompts[:1], max_new_tokens=12)
    traces = []
    for count in (1, 2):
        with num_threads(count):
            traces.append(runs.honest(replace(scenario, name=f"greedy-{count}-threads"), "eager"))
    return _compare(traces[0], traces[1])


def _batch_of_one(runs: Runs) -> Outcome:
    scenario = find_scenario("batch")
    alone = replace(scenario, name="batch-of-1", batch_size=1)
    return _compare(runs.honest(alone, "fused"), runs.honest(scenario, "fused"))


def _paged_or_not(runs: Runs) -> Outcome:
    scenario = find_scenario("paged")
    dense = replace(scenario, name="paged-as-dense", cache="dense")
    a, b = runs.honest(dense, "fused"), runs.honest(scenario, "fused")
    return _compare(a, b) if _outputs(a) == _outputs(b) else Outcome(False, "other tokens")
