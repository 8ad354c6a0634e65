"""The selftest of pipelines: every fault of theirs in a run of the demo models on three stages, and honest controls.

The stages are threads: what is tested is what a trace says of a fault, not how processes are started.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from specscope.engine.lab.faults import Expectation, Fault
from specscope.engine.lab.faults.base import Places
from specscope.engine.lab.faults.pipeline import PIPELINE_FAULTS, PipelineFault
from specscope.engine.lab.selftest.controls import Control, Outcome, judge_control
from specscope.engine.lab.selftest.judge import Judgement, judge_verdict
from specscope.engine.lab.selftest.runs import Runs
from specscope.engine.lab.selftest.scenarios import Scenario, demo_choice, find_scenario
from specscope.engine.lab.selftest.threads import local_pipeline
from specscope.engine.load.models import DEMO_MODELS
from specscope.engine.ppsd.choice import PipelineChoice
from specscope.engine.ppsd.hop import ClockOffset
from specscope.engine.ppsd.rank import StageFacts, load_rank
from specscope.engine.ppsd.record import PipelineFacts, PipelineRecorder, pipeline_manifest
from specscope.engine.ppsd.turns import stop_rules
from specscope.engine.record.manifest import RunFacts
from specscope.engine.run.prompts import load_prompts
from specscope.engine.run.runner import turn_seed
from specscope.engine.settings import SamplingRule, Settings
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.writer import TraceWriter

NUM_STAGES, TOKENS = 3, 24
DRAWN = SamplingRule("sampling", temperature=0.8)
VERIFY: Places = (("verify", "argmax"), ("verify", "top"), ("verify", "logsumexp"), ("verify", "entropy"))
#: What the verdict must say, by the fault.
EXPECTED = {
    "P01": Expectation(places=VERIFY, invariant="pipeline.epoch"),
    "P02": Expectation(places=VERIFY, invariant="pipeline.cuts"),
    "P03": Expectation(places=VERIFY, invariant="pipeline.cuts"),
    "P04": Expectation(places=VERIFY),
    "P05": Expectation(places=VERIFY),
    "P06": Expectation(places=VERIFY),
    "P07": Expectation(places=(("accept", "bonus"), ("verify", "prefill.pending_token")), invariant="accept.bonus"),
    "P08": Expectation(places=(("draft", "exit_token"), ("draft", "exit_prob"))),
}


def scenario_of(name: str) -> Scenario:
    """``stages``, greedy, or ``stages, drawn``: one prompt; its baseline is the teacher in one process."""
    prompts = tuple(load_prompts(DEMO_MODELS / "prompts.jsonl")[:1])
    rule = DRAWN if name == "stages, drawn" else None
    return Scenario(
        name=name,
        says=f"{NUM_STAGES} stages against one process",
        prompts=prompts,
        choice=demo_choice(rule=rule, drafter="early-exit"),
        max_new_tokens=TOKENS,
        baseline="baseline",
    )


def _fault_of(fault: PipelineFault) -> Fault:
    scenario = "stages, drawn" if fault.drawn else "stages"
    return Fault(id=fault.id, says=fault.says, expect=EXPECTED[fault.id], scenario=scenario)


#: As the selftest's others, by id.
STAGE_FAULTS = {fault.id: _fault_of(fault) for fault in PIPELINE_FAULTS.values()}


def judge_stages(runs: Runs, fault: Fault) -> Judgement:
    """Runs the stages with ``fault`` in, compares them with the honest baseline, and judges the verdict.

    Raises:
        SpecScopeError: where the honest baseline cannot be had.
    """
    scenario, injected = scenario_of(fault.scenario), PIPELINE_FAULTS[fault.id]
    baseline = runs.baseline(scenario)
    if injected.shows == "pipelines":
        baseline = record_stages(scenario, runs.unused(f"{scenario.name}, honest"))
    try:
        verdict = diff_traces(baseline, record_stages(scenario, runs.path(fault.id), injected))
    except SpecScopeError as error:
        return judge_verdict(fault, error)
    return judge_verdict(fault, verdict)


def stage_controls() -> list[Control]:
    """Honest pipelines beside one process, beside trees, and beside themselves."""
    return [
        Control("honest stages", "three stages against one process", _beside_one_process("stages")),
        Control("honest stages, drawn", "the same with drawn tokens", _beside_one_process("stages, drawn")),
        Control("stages beside trees", "three stages against a tree of 16", _beside_trees),
        Control("stages twice", "three stages, decoded twice", _twice),
    ]


def _beside_one_process(name: str) -> Callable[[Runs], Outcome]:
    def run(runs: Runs) -> Outcome:
        scenario = scenario_of(name)
        return judge_control(diff_traces(runs.baseline(scenario), record_stages(scenario, runs.unused(name))))

    return run


def _beside_trees(runs: Runs) -> Outcome:
    scenario = scenario_of("stages")
    trees = replace(find_scenario("greedy"), name="stages-trees", prompts=scenario.prompts, max_new_tokens=TOKENS)
    stages = record_stages(scenario, runs.unused("stages"))
    return judge_control(diff_traces(runs.honest(trees, "fused"), stages))


def _twice(runs: Runs) -> Outcome:
    scenario = scenario_of("stages")
    first = record_stages(scenario, runs.unused("stages"))
    return judge_control(diff_traces(first, record_stages(scenario, runs.unused("stages"))))


def record_stages(scenario: Scenario, trace: Path, fault: PipelineFault | None = None) -> Path:
    """Decodes the scenario's prompt on three stages, with ``fault`` in, into ``trace``.

    Raises:
        SpecScopeError: where that fails.
    """
    settings = Settings(choice=replace(scenario.choice, device="cpu"), max_new_tokens=scenario.max_new_tokens)
    choice = PipelineChoice(num_stages=NUM_STAGES)
    loaded = [load_rank(settings, choice, rank, recording=True) for rank in range(NUM_STAGES)]
    stages = [rank.stage for rank in loaded]
    facts = [StageFacts(stage.layers, stage.num_bytes, ClockOffset(0, 0, 0), "cpu") for stage in stages]
    rules = stop_rules(settings, stages[0].part)
    written = replace(settings, fault=None if fault is None else fault.id)
    manifest = pipeline_manifest(
        RunFacts(written, "decisions", rules, None),
        stages[0].part,
        PipelineFacts(facts, NUM_STAGES, loaded[0].head, drafts=True, carrier=loaded[0].means.carrier),
    )
    writer = TraceWriter(trace, overwrite=True, warn=print)
    recorder = PipelineRecorder(writer, manifest, facts)
    (prompt,) = scenario.prompts
    tokenizer = stages[0].part.tokenizer
    assert tokenizer is not None, "the demo's teacher has one"
    ids = list(tokenizer(prompt.turns[0]).input_ids)
    rule = settings.choice.rule
    seed = None if rule.rule == "greedy" else turn_seed(settings.seed or 0, prompt.id, 0)
    with local_pipeline(stages, loaded[0].exit_draft, rule=rule, recording=True, fault=fault) as pipeline:
        pipeline.decode(ids, rules, seed=seed, observer=recorder.turn(0, prompt, 0))
    writer.finish("complete")
    return trace
