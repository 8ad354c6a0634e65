"""Each prompt in every mode, in the same processes and the same minutes.

A prompt is decoded sequentially, with the exit head, with drafts that always hold and with drafts that never do; then
by the whole teacher in the first process, and by EAGLE-3 there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from specscope.engine.lab.bench.kept import kept
from specscope.engine.lab.bench.pipeline.costs import Durations, durations_of
from specscope.engine.lab.bench.pipeline.plan import MODES, PATIENCE_S, PipelinePlan
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop.phases import TurnResult
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd.conductor import Conductor, ExitDraft, PipelineRequest
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.message import Event
from specscope.engine.ppsd.outcome import Drafted, PipelineTurn, Verified
from specscope.engine.ppsd.pace import Pace
from specscope.engine.ppsd.rank import Loaded, conductor_links
from specscope.engine.ppsd.schedule import Item
from specscope.engine.ppsd.turns import stop_rules
from specscope.engine.run.prompts import load_prompts
from specscope.engine.settings import DEMO_MODELS
from specscope.tracer.errors import EngineError


class Collector:
    """Keeps what the stages did; it writes nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def turn_started(self, prompt_ids: list[int], reused_length: int, first: Verified) -> None:
        """As an observer hears of it."""
        self.events += first.events

    def token_verified(self, verified: Verified) -> None:
        """As an observer hears of it."""
        self.events += verified.events

    def turn_ended(self, turn: PipelineTurn, events: list[Event]) -> None:
        """As an observer hears of it."""
        self.events += events


class Measures:
    """Times per token and acceptances by mode, and what the stages' work took, over all that was measured."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.accepted: dict[str, list[float]] = defaultdict(list)
        self.drafting: Durations = defaultdict(list)
        self.sequential: Durations = defaultdict(list)

    def add(self, measured: dict[str, Any]) -> None:
        """Takes in what ``_measure_prompt`` returned."""
        for mode, time_ns in measured["times"].items():
            self.times[mode].append(time_ns)
        for mode, share in measured["accepted"].items():
            self.accepted[mode].append(share)
        for kept_durations, durations in (
            (self.drafting, measured["drafting"]),
            (self.sequential, measured["sequential"]),
        ):
            for work, taken in durations.items():
                kept_durations[work] += taken


class _Engines(NamedTuple):
    """What a prompt is decoded by, in turn."""

    conductor: Conductor
    head: ExitDraft
    whole: Models  # the teacher in one process
    eagle: Models  # EAGLE-3 in one process
    rules: StopRules
    vocab_size: int


def measure(plan: PipelinePlan, loaded: Loaded) -> Measures:
    """Every prompt in every round; the other ranks serve meanwhile, and end with it."""
    settings, teacher = plan.settings, loaded.stage.part
    assert loaded.exit_draft is not None, "this is the first rank, and it drafts"
    assert teacher.tokenizer is not None, "the demo's teacher has one"
    engines = _Engines(
        _conductor(plan, loaded),
        loaded.exit_draft,
        whole=load_models(replace(settings.choice, mode="baseline")),
        eagle=load_models(replace(settings.choice, drafter="eagle3")),
        rules=stop_rules(settings, teacher)._replace(eos_token_ids=[]),
        vocab_size=teacher.vocab_size,
    )
    shape = {"stages": plan.num_stages, "exit_layer": len(loaded.stage.layers), "untrained": plan.untrained}
    measures = Measures()
    for number in range(plan.num_rounds):
        for prompt in load_prompts(DEMO_MODELS / "prompts.jsonl")[: plan.num_prompts]:
            context = list(teacher.tokenizer(prompt.turns[0]).input_ids)
            key = {**shape, "tokens": plan.num_tokens, "prompt": prompt.id, "round": number, "form": 3}
            order = _turned(MODES, len(measures.times["sequential"]))
            measures.add(kept(plan.keep, key, partial(_measure_prompt, engines, context, order)))
    engines.conductor.stop()
    return measures


def _conductor(plan: PipelinePlan, loaded: Loaded) -> Conductor:
    return Conductor(
        loaded.stage,
        conductor_links(loaded, plan.num_stages, recording=True),
        EventLog(0, recording=True),
        pace=Pace(plan.choice.items_in_flight),
        exit_draft=loaded.exit_draft,
        decode_text=str,
        idle=lambda: None,
        patience_s=PATIENCE_S,
    )


def _turned(modes: Sequence[str], number: int) -> list[str]:
    """The modes, each first in turn: what comes right after other work finds the caches cold."""
    first = number % len(modes)
    return [*modes[first:], *modes[:first]]


def _measure_prompt(engines: _Engines, context: list[int], order: Sequence[str]) -> dict[str, Any]:
    """One prompt in every mode in that ``order``, after it was decoded once untimed: that tells which drafts hold."""
    conductor = engines.conductor
    num_stages = conductor.pace.most
    times: dict[str, float] = {}
    accepted: dict[str, float] = {}
    events: dict[str, Durations] = {}
    conductor.exit_draft = None
    known = conductor.decode(PipelineRequest(context, engines.rules), lambda _: None)
    text = [*context, *known.output_ids]
    for mode in order:
        conductor.exit_draft = drafts_of(mode, text, engines.head, engines.vocab_size)
        conductor.pace = Pace(num_stages)
        collector = Collector()
        turn = conductor.decode(PipelineRequest(context, engines.rules, observer=collector), lambda _: None)
        if turn.output_ids != known.output_ids:
            raise EngineError(f"drafts that {mode} hold changed the output: nothing that is measured of it counts")
        times[mode] = _ns_per_token(turn)
        accepted[mode] = turn.acceptance or 0.0
        events[mode] = durations_of(collector.events, num_stages)
    times["one process"] = _time_alone(engines.whole, context, engines.rules)
    times["EAGLE-3"] = _time_alone(engines.eagle, context, engines.rules)
    return {"times": times, "accepted": accepted, "drafting": events["always"], "sequential": events["sequential"]}


def drafts_of(mode: str, text: list[int], head: ExitDraft, vocab_size: int) -> ExitDraft | None:
    """What drafts in ``mode``; always and never follow ``text``, and cost what ``head`` does."""
    if mode in ("sequential", "head"):
        return None if mode == "sequential" else head

    def draft(hidden: torch.Tensor, item: Item) -> Drafted:
        head(hidden, item)  # what it costs
        following = text[item.position + 1] if item.position + 1 < len(text) else 0
        return Drafted((following + (mode == "never")) % vocab_size, None)

    return draft


def _ns_per_token(turn: PipelineTurn | TurnResult) -> float:
    """After the first token, which ends the prefill."""
    return float((turn.duration_ns - turn.prefill_ns) / (len(turn.output_ids) - 1))


def _time_alone(models: Models, context: list[int], rules: StopRules) -> float:
    session = Session(models.teacher, models.drafter)
    for _ in session.decode(context, rules):
        pass
    return _ns_per_token(session.result)
