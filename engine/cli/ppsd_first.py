"""The first rank of ``specscope run --engine ppsd``: it has the prompts, the output and the trace."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import orjson

from specscope.engine.cli.choices import warn_once
from specscope.engine.cli.stream import Stream
from specscope.engine.ppsd.carrier import Carrier
from specscope.engine.ppsd.choice import PipelineChoice
from specscope.engine.ppsd.conductor import Conductor
from specscope.engine.ppsd.events import EventLog
from specscope.engine.ppsd.hop import StageLostError
from specscope.engine.ppsd.pace import Pace
from specscope.engine.ppsd.rank import Loaded, StageFacts, conductor_links
from specscope.engine.ppsd.record import PipelineFacts, PipelineRecorder, RunningPipeline, pipeline_manifest
from specscope.engine.ppsd.turns import (
    Observing,
    PipelineEvents,
    PipelineReport,
    check_prompts,
    run_pipeline,
    stop_rules,
)
from specscope.engine.ranks.lifeline import Lifeline
from specscope.engine.record.manifest import RunFacts
from specscope.engine.record.target import ending, redacted
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest
from specscope.tracer.cli.console import echo_document, echo_words
from specscope.tracer.naming.stages import THROUGH_HOST
from specscope.tracer.naming.text import counted


def conduct(
    request: RunRequest,
    choice: PipelineChoice,
    loaded: Loaded,
    *,
    facts: list[StageFacts],
    lifeline: Lifeline,
    spoil: Callable[[Conductor], None],
    as_json: bool,
) -> None:
    """Decodes every prompt, prints what ``run`` prints, and ends the other ranks."""
    teacher, settings = loaded.stage.part, request.settings
    check_prompts(request.prompts, teacher, stop_rules(settings, teacher))
    if loaded.means.carrier.warning is not None:
        warn_once(loaded.means.carrier.warning)
    recording = request.trace is not None
    conductor = Conductor(
        loaded.stage,
        conductor_links(loaded, choice.num_stages, recording=recording),
        EventLog(0, recording=recording),
        pace=Pace(choice.items_in_flight, adapts=choice.window is None),
        exit_draft=loaded.exit_draft,
        decode_text=lambda ids: str(teacher.tokenizer.decode(ids, skip_special_tokens=False)),  # type: ignore[union-attr]
        idle=lifeline.looked,
        elsewhere=lifeline.elsewhere,
        patience_s=choice.patience_s,
    )
    spoil(conductor)
    stream = Stream(teacher, quiet=as_json, traced=False)
    events = _events(stream, lifeline)
    reports = []
    with _traced(request, choice, loaded, facts=facts, conductor=conductor) as observing:
        for report in run_pipeline(conductor, teacher, settings, request.prompts, events=events, observing=observing):
            reports.append(report)
            with lifeline.elsewhere():
                if as_json:
                    echo_document(orjson.dumps(report_json(report)).decode() + "\n")
                else:
                    click.echo()
        conductor.stop()
    if not as_json:
        with lifeline.elsewhere():
            _print_summary(reports, facts, loaded.means.carrier)
            if request.trace is not None:
                echo_words(f"trace: {request.trace.path}  (specscope check, show, view)")


@contextmanager
def _traced(
    request: RunRequest, choice: PipelineChoice, loaded: Loaded, *, facts: list[StageFacts], conductor: Conductor
) -> Iterator[Observing]:
    """What observes the turns inside; however the block ends, the trace ends with it and says how."""
    if request.trace is None:
        yield _nobody
        return
    settings, teacher = request.settings, loaded.stage.part
    writer = request.trace.open(warn_once)
    sink = redacted(request.trace, writer, teacher)
    run = RunFacts(settings, request.trace.level, stop_rules(settings, teacher), None)
    pipeline = PipelineFacts(
        stages=facts,
        window=choice.items_in_flight,
        head=loaded.head,
        drafts=loaded.exit_draft is not None,
        carrier=loaded.means.carrier,
    )
    recorder = PipelineRecorder(sink, pipeline_manifest(run, teacher, pipeline), facts)
    signal.signal(signal.SIGTERM, _another_ended)
    with ending(RunningPipeline(conductor, recorder), writer):
        yield recorder.turn
    writer.check_whole()


def _nobody(number: int, prompt: Prompt, prompt_turn: int) -> None:
    """Observes nothing."""


def _another_ended(*_: object) -> None:
    """The launcher ends this rank because another one ended: the trace is to say so."""
    raise StageLostError("another stage ended")


def _events(stream: Stream, lifeline: Lifeline) -> PipelineEvents:
    """The stream hears of the turns, and so does who watches this rank."""

    def turn_begins(prompt: Prompt, number: int) -> None:
        lifeline.turn_to("prefill")
        with lifeline.elsewhere():
            stream.turn_begins(prompt, number)

    def tokens(prompt: Prompt, output_ids: list[int]) -> None:
        lifeline.turn_to("decoding")
        with lifeline.elsewhere():
            stream.tokens(prompt, output_ids)

    return PipelineEvents(turn_begins, tokens)


def report_json(report: PipelineReport) -> dict[str, object]:
    """A turn as the object that ``--json`` prints."""
    result = report.result
    acceptance = result.acceptance
    return {
        "id": report.prompt_id,
        "turn": report.turn,
        "prompt_turn": report.prompt_turn,
        "output_ids": result.output_ids,
        "text": report.text,
        "reason": result.reason,
        "metrics": {
            "num_tokens": len(result.output_ids),
            "num_drafted": result.num_drafted,
            "num_accepted": result.num_accepted,
            "num_dropped": result.num_dropped,
            "acceptance": None if acceptance is None else round(acceptance, 4),
            "tokens_per_s": round(result.tokens_per_s, 2),
            "prefill_s": round(result.prefill_ns / 1e9, 6),
            "duration_s": round(result.duration_ns / 1e9, 6),
        },
    }


def _print_summary(reports: list[PipelineReport], facts: list[StageFacts], carrier: Carrier) -> None:
    results = [report.result for report in reports]
    tokens = sum(len(result.output_ids) for result in results)
    seconds = sum(result.duration_ns for result in results) / 1e9
    drafted, accepted = sum(r.num_drafted for r in results), sum(r.num_accepted for r in results)
    click.echo()
    echo_words(
        f"{counted(len(reports), 'turn')}, {counted(tokens, 'token')} through {counted(len(facts), 'stage')}, "
        f"{tokens / max(seconds, 1e-9):.1f} tokens/s"
    )
    share = f"{accepted / drafted:.2f} of the drafts accepted, " if drafted else "sequential: no drafts; "
    echo_words(f"{share}{counted(sum(r.num_dropped for r in results), 'item')} dropped in flight")
    for number, stage in enumerate(facts):
        hop = f", hop {stage.clock.hop_ns / 1e3:.0f} us" if number else ""
        first, last = stage.layers.start, stage.layers.stop - 1
        held = f"layers {first} to {last}, {stage.num_bytes / 1e6:.1f} MB of weights"
        echo_words(f"stage {number} on {stage.device}: {held}{hop}")
    echo_words(f"hidden states carried by {carrier.name}{THROUGH_HOST if carrier.is_staged else ''}")
