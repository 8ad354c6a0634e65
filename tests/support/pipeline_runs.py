"""Traced runs of the tiny teacher: in one process, with trees, and in a pipeline of threads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from specscope.engine.lab.faults.pipeline import PipelineFault
from specscope.engine.load.models import load_models
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd.carrier import Carrier
from specscope.engine.ppsd.conductor import ExitDraft
from specscope.engine.ppsd.hop import ClockOffset
from specscope.engine.ppsd.outcome import Drafted
from specscope.engine.ppsd.rank import StageFacts
from specscope.engine.ppsd.record import PipelineFacts, PipelineRecorder, RunningPipeline, pipeline_manifest
from specscope.engine.ppsd.schedule import Item
from specscope.engine.record.manifest import RunFacts
from specscope.engine.record.target import ending
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns, turn_seed
from specscope.engine.settings import GREEDY, ModelChoice, SamplingRule, Settings
from specscope.engine.tree.policy import TreePolicy
from specscope.tracer.files.writer import TraceWriter
from support.local_pipeline import load_stages, local_pipeline
from support.tiny_models import VOCAB
from support.traces import load

TOKENS = 16
PROMPT = Prompt("p", ids=(5, 9, 2, 33, 8))


def settings_of(teacher: Path, rule: SamplingRule) -> Settings:
    choice = ModelChoice(teacher=str(teacher), drafter="none", mode="eager", device="cpu", rule=rule)
    return Settings(choice=choice, max_new_tokens=TOKENS)


def record_alone(teacher: Path, trace: Path, rule: SamplingRule) -> Path:
    """Sequential decoding in one process, traced."""
    return _record(settings_of(teacher, rule), trace)


def record_trees(teacher: Path, trace: Path) -> Path:
    """The same prompt with chains of looked-up drafts, traced."""
    settings = settings_of(teacher, GREEDY)
    policy = TreePolicy(kind="dynamic", depth=3, top_k=2, budget=6)
    return _record(
        replace(settings, choice=replace(settings.choice, drafter="ngram", mode="fused", policy=policy)), trace
    )


def _record(settings: Settings, trace: Path) -> Path:
    request = RunRequest(settings, [PROMPT], TraceTarget(trace))
    models = load_models(request.settings.choice)
    assert len(list(run_turns(request, models, open_trace(request, models)))) == 1
    return trace


def mixed_draft(whole: list[int]) -> ExitDraft:
    """What follows in ``whole``, and at every third position something else."""

    def draft(_: torch.Tensor, item: Item) -> Drafted:
        following = item.position + 1
        token = whole[following] if following < len(whole) else 0
        return Drafted((token + (following % 3 == 0)) % VOCAB, None)

    return draft


def record_pipeline(alone: Path, teacher: Path, rule: SamplingRule, fault: PipelineFault | None = None) -> Path:
    """Three stages with a head that is right at two positions of three, by the run ``alone``; traced."""
    trace = alone.with_name("pipeline.jsonl")
    (end,) = (line for line in load(alone) if line["kind"] == "turn_end")
    stages = load_stages(teacher, 4, 3)
    settings = replace(settings_of(teacher, rule), fault=fault.id if fault is not None else None)
    rules = StopRules(TOKENS, [0], [])
    facts = [StageFacts(stage.layers, stage.num_bytes, ClockOffset(0, 0, 0), "cpu") for stage in stages]
    split = PipelineFacts(facts, 3, None, drafts=True, carrier=Carrier("gloo"))
    manifest = pipeline_manifest(RunFacts(settings, "decisions", rules, None), stages[0].part, split)
    writer = TraceWriter(trace, overwrite=True, warn=print)
    recorder = PipelineRecorder(writer, manifest, facts)
    seed = None if rule is GREEDY else turn_seed(0, PROMPT.id, 0)
    draft = mixed_draft([*PROMPT.ids, *end["output_ids"]])
    with (
        local_pipeline(stages, draft, rule=rule, recording=True, fault=fault) as pipeline,
        ending(RunningPipeline(pipeline.conductor, recorder), writer),
    ):
        pipeline.decode(list(PROMPT.ids), rules, seed=seed, observer=recorder.turn(0, PROMPT, 0))
    return trace
